import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.File;
import java.math.BigInteger;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Date;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import org.bouncycastle.asn1.*;
import org.bouncycastle.asn1.cmp.*;
import org.bouncycastle.asn1.crmf.*;
import org.bouncycastle.asn1.pkcs.CertificationRequest;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.*;
import org.bouncycastle.cert.*;
import org.bouncycastle.cert.cmp.*;
import org.bouncycastle.cert.crmf.*;
import org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils;
import org.bouncycastle.cert.crmf.jcajce.JcePKMACValuesCalculator;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.*;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcePBMac1CalculatorProviderBuilder;

/**
 * A certification authority that speaks CMP by Bouncy Castle's classes, for tests of a client. `java -cp … CMPAuthority.java FOLDER PORT SECRET`.
 *
 * It issues, lets wait, verifies confirmations by their hash, revokes and publishes a CRL at `/crl`. The certProfile in
 * a request says how it is to behave: `docsign` is honest, the others lie each in one way.
 */
public class CMPAuthority {
    static final BouncyCastleProvider BC = new BouncyCastleProvider();
    static final ASN1ObjectIdentifier CERT_PROFILE = new ASN1ObjectIdentifier("1.3.6.1.5.5.7.4.21");
    static final ASN1ObjectIdentifier CA_CERTS = new ASN1ObjectIdentifier("1.3.6.1.5.5.7.4.17");
    static final ASN1ObjectIdentifier IMPLICIT_CONFIRM = new ASN1ObjectIdentifier("1.3.6.1.5.5.7.4.13");
    static final ASN1ObjectIdentifier OLD_CERT_ID = new ASN1ObjectIdentifier("1.3.6.1.5.5.7.5.1.5");
    static final SecureRandom RANDOM = new SecureRandom();

    /** What is known of one transaction. */
    static class Transaction {
        String profile = "";
        int reply;
        BigInteger requestId;
        X509CertificateHolder certificate;
        int polls;
        byte[] nonce;
        boolean implicit;
    }

    final char[] secret;
    final X509CertificateHolder ca, responder, ra, other;
    final PrivateKey caKey, responderKey, otherKey;
    final Map<String, Transaction> transactions = new ConcurrentHashMap<>();
    final Map<BigInteger, Integer> revoked = new ConcurrentHashMap<>();
    final Map<BigInteger, String> confirmed = new ConcurrentHashMap<>();
    byte[] last = new byte[0];

    CMPAuthority(File folder, char[] secret) throws Exception {
        this.secret = secret;
        ca = certificate(folder, "ca");
        responder = certificate(folder, "responder");
        ra = certificate(folder, "ra");
        other = certificate(folder, "other");
        caKey = key(folder, "ca");
        responderKey = key(folder, "responder");
        otherKey = key(folder, "other");
    }

    public static void main(String[] arguments) throws Exception {
        CMPAuthority authority = new CMPAuthority(new File(arguments[0]), arguments[2].toCharArray());
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1])), 50);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/crl", exchange -> authority.answer(exchange, "application/pkix-crl", x -> authority.crl()));
        server.createContext("/confirmed", exchange -> authority.answer(exchange, "text/plain", x -> authority.confirmed.toString().getBytes()));
        server.createContext("/cmp", exchange -> authority.answer(exchange, "application/pkixcmp", authority::reply));
        server.start();
    }

    interface Say {
        byte[] apply(byte[] asked) throws Exception;
    }

    void answer(HttpExchange exchange, String type, Say say) {
        try (exchange) {
            byte[] told = say.apply(exchange.getRequestBody().readAllBytes());
            exchange.getResponseHeaders().set("Content-Type", type);
            exchange.sendResponseHeaders(200, told.length);
            exchange.getResponseBody().write(told);
        } catch (Exception fault) {
            fault.printStackTrace();
            try {
                exchange.sendResponseHeaders(500, -1);
            } catch (Exception gone) {
                gone.printStackTrace();
            }
        }
    }

    synchronized byte[] reply(byte[] asked) throws Exception {
        PKIMessage message = PKIMessage.getInstance(asked);
        ProtectedPKIMessage request = new ProtectedPKIMessage(new GeneralPKIMessage(asked));
        PKIHeader header = request.getHeader();
        boolean mac = header.getProtectionAlg().getAlgorithm().equals(CMPObjectIdentifiers.passwordBasedMac);
        boolean mac1 = header.getProtectionAlg().getAlgorithm().getId().equals("1.2.840.113549.1.5.14");
        String id = new BigInteger(1, header.getTransactionID().getOctets()).toString(16);
        Transaction known = transactions.computeIfAbsent(id, x -> new Transaction());
        PKIBody body;
        if (!isGenuine(request, message, mac, mac1)) {
            body = error("who are you?", PKIFailureInfo.badMessageCheck);
        } else if (known.nonce != null && (header.getRecipNonce() == null || !java.util.Arrays.equals(known.nonce, header.getRecipNonce().getOctets()))) {
            body = error("that is not my last nonce", PKIFailureInfo.badRecipientNonce);
        } else {
            body = decide(message, known, header);
        }
        known.nonce = RANDOM.generateSeed(16);
        return last = protect(body, header, known, mac, mac1);
    }

    boolean isGenuine(ProtectedPKIMessage request, PKIMessage message, boolean mac, boolean mac1) throws Exception {
        if (mac) {
            return request.verify(new PKMACBuilder(new JcePKMACValuesCalculator().setProvider(BC)), secret);
        }
        if (mac1) {
            return request.verify(new JcePBMac1CalculatorProviderBuilder().setProvider(BC).build(), secret);
        }
        X509CertificateHolder[] along = request.getCertificates();
        return along.length > 0 && along[0].equals(ra) && request.getHeader().getSender().getName().equals(ra.getSubject())
            && request.verify(verifier(ra.getSubjectPublicKeyInfo()));
    }

    PKIBody decide(PKIMessage message, Transaction known, PKIHeader header) throws Exception {
        PKIBody body = message.getBody();
        switch (body.getType()) {
            case PKIBody.TYPE_P10_CERT_REQ:
            case PKIBody.TYPE_INIT_REQ:
            case PKIBody.TYPE_CERT_REQ:
            case PKIBody.TYPE_KEY_UPDATE_REQ:
                return order(body, known, header);
            case PKIBody.TYPE_POLL_REQ:
                if (known.certificate == null || !PollReqContent.getInstance(body.getContent()).getCertReqIdValues()[0].equals(known.requestId)) {
                    return error("nothing of yours waits", PKIFailureInfo.badRequest);
                }
                if (known.polls-- > 1) {
                    return new PKIBody(PKIBody.TYPE_POLL_REP, new PollRepContent(new ASN1Integer(known.requestId), new ASN1Integer(1)));
                }
                return granted(known);
            case PKIBody.TYPE_CERT_CONFIRM:
                return confirm(body, known);
            case PKIBody.TYPE_REVOCATION_REQ:
                return revoke(body);
            case PKIBody.TYPE_GEN_MSG:
                ASN1Encodable told = new DERSequence(ca.toASN1Structure());
                return new PKIBody(PKIBody.TYPE_GEN_REP, new GenRepContent(new InfoTypeAndValue(CA_CERTS, told)));
            default:
                return error("not spoken here", PKIFailureInfo.badRequest);
        }
    }

    PKIBody order(PKIBody body, Transaction known, PKIHeader header) throws Exception {
        for (InfoTypeAndValue one : header.getGeneralInfo() == null ? new InfoTypeAndValue[0] : header.getGeneralInfo()) {
            if (one.getInfoType().equals(CERT_PROFILE)) {
                known.profile = ASN1UTF8String.getInstance(ASN1Sequence.getInstance(one.getInfoValue()).getObjectAt(0)).getString();
            }
            known.implicit |= one.getInfoType().equals(IMPLICIT_CONFIRM);
        }
        X500Name subject;
        SubjectPublicKeyInfo publicKey;
        if (body.getType() == PKIBody.TYPE_P10_CERT_REQ) {
            PKCS10CertificationRequest csr = new PKCS10CertificationRequest(CertificationRequest.getInstance(body.getContent()));
            if (!csr.isSignatureValid(verifier(csr.getSubjectPublicKeyInfo()))) {
                return error("the request is not signed by its key", PKIFailureInfo.badPOP);
            }
            subject = csr.getSubject();
            publicKey = csr.getSubjectPublicKeyInfo();
            known.requestId = BigInteger.valueOf(-1);
            known.reply = PKIBody.TYPE_CERT_REP;
        } else {
            CertReqMsg one = CertReqMessages.getInstance(body.getContent()).toCertReqMsgArray()[0];
            CertificateRequestMessage request = new CertificateRequestMessage(one);
            if (request.getProofOfPossessionType() != CertificateRequestMessage.popRaVerified) {
                return error("neither verified by you nor proved", PKIFailureInfo.badPOP);
            }
            if (body.getType() == PKIBody.TYPE_KEY_UPDATE_REQ && !request.hasControl(OLD_CERT_ID)) {
                return error("an update of what?", PKIFailureInfo.addInfoNotAvailable);
            }
            subject = request.getCertTemplate().getSubject();
            publicKey = request.getCertTemplate().getPublicKey();
            known.requestId = one.getCertReq().getCertReqId().getValue();
            known.reply = body.getType() + 1;
        }
        if (known.profile.equals("refused")) {
            PKIStatusInfo no = new PKIStatusInfo(PKIStatus.rejection, new PKIFreeText("we do not certify such people"), new PKIFailureInfo(PKIFailureInfo.badCertTemplate));
            return response(known, new CertResponse(new ASN1Integer(known.requestId), no));
        }
        if (known.profile.endsWith("error")) {
            return error("the machine is tired", PKIFailureInfo.systemFailure);
        }
        known.certificate = issue(subject, known.profile.equals("other-key") ? ca.getSubjectPublicKeyInfo() : publicKey);
        known.polls = known.profile.equals("docsign") ? 2 : known.profile.equals("patient") ? 1000 : 0;
        if (known.polls == 0) {
            return granted(known);
        }
        return response(known, new CertResponse(new ASN1Integer(known.requestId), new PKIStatusInfo(PKIStatus.waiting)));
    }

    PKIBody granted(Transaction known) {
        CertifiedKeyPair pair = new CertifiedKeyPair(new CertOrEncCert(new CMPCertificate(known.certificate.toASN1Structure())));
        return response(known, new CertResponse(new ASN1Integer(known.requestId), new PKIStatusInfo(PKIStatus.granted), pair, null));
    }

    PKIBody response(Transaction known, CertResponse one) {
        CMPCertificate[] above = {new CMPCertificate(ca.toASN1Structure())};
        return new PKIBody(known.reply, new CertRepMessage(known.reply == PKIBody.TYPE_INIT_REP ? above : null, new CertResponse[] {one}));
    }

    PKIBody confirm(PKIBody body, Transaction known) throws Exception {
        if (known.certificate == null) {
            return error("nothing of yours waits for this", PKIFailureInfo.badRequest);
        }
        BigInteger serial = known.certificate.getSerialNumber();
        if (confirmed.containsKey(serial)) {
            return error("you said so before", PKIFailureInfo.certConfirmed);
        }
        CertConfirmContent content = CertConfirmContent.getInstance(body.getContent());
        CertificateStatus status = new CertificateConfirmationContent(content).getStatusMessages()[0];
        if (!status.isVerified(known.certificate, new JcaDigestCalculatorProviderBuilder().setProvider(BC).build()) || !status.getCertRequestID().equals(known.requestId)) {
            return error("another certificate", PKIFailureInfo.badCertId);
        }
        boolean accepted = status.getStatusInfo() == null || status.getStatusInfo().getStatus().signum() == 0;
        confirmed.put(serial, accepted ? "accepted" : "rejected");
        if (!accepted) {
            revoked.put(serial, 5);
        }
        return new PKIBody(PKIBody.TYPE_CONFIRM, new PKIConfirmContent());
    }

    PKIBody revoke(PKIBody body) throws Exception {
        RevDetails details = RevReqContent.getInstance(body.getContent()).toRevDetailsArray()[0];
        BigInteger serial = details.getCertDetails().getSerialNumber().getValue();
        Extension reason = details.getCrlEntryDetails().getExtension(Extension.reasonCode);
        boolean mine = details.getCertDetails().getIssuer().equals(ca.getSubject());
        PKIStatusInfo status = new PKIStatusInfo(PKIStatus.granted);
        if (!mine || revoked.containsKey(serial)) {
            int why = mine ? PKIFailureInfo.certRevoked : PKIFailureInfo.wrongAuthority;
            status = new PKIStatusInfo(PKIStatus.rejection, new PKIFreeText("not revoked"), new PKIFailureInfo(why));
        } else {
            revoked.put(serial, ASN1Enumerated.getInstance(reason.getParsedValue()).intValueExact());
        }
        return new PKIBody(PKIBody.TYPE_REVOCATION_REP, new RevRepContentBuilder().add(status).build());
    }

    static PKIBody error(String text, int failure) {
        PKIStatusInfo status = new PKIStatusInfo(PKIStatus.rejection, new PKIFreeText(text), new PKIFailureInfo(failure));
        return new PKIBody(PKIBody.TYPE_ERROR, new ErrorMsgContent(status));
    }

    byte[] protect(PKIBody body, PKIHeader asked, Transaction known, boolean mac, boolean mac1) throws Exception {
        String how = body.getType() == PKIBody.TYPE_ERROR || body.getType() == known.reply ? known.profile : "";
        if (how.equals("replay") && last.length > 0) {
            return last;
        }
        X509CertificateHolder signer = how.equals("stranger") ? other : responder;
        GeneralName sender = new GeneralName(signer.getSubject());
        byte[] transaction = how.equals("wrong-transaction") ? RANDOM.generateSeed(16) : asked.getTransactionID().getOctets();
        byte[] nonce = how.equals("wrong-nonce") ? RANDOM.generateSeed(16) : asked.getSenderNonce().getOctets();
        long late = how.equals("wrong-time") ? 3_600_000L : 0L;
        if (how.startsWith("unprotected")) {
            PKIHeaderBuilder header = new PKIHeaderBuilder(2, sender, asked.getSender()).setTransactionID(transaction).setRecipNonce(nonce).setSenderNonce(known.nonce);
            return new PKIMessage(header.build(), body).getEncoded();
        }
        ProtectedPKIMessageBuilder message = new ProtectedPKIMessageBuilder(sender, asked.getSender())
            .setBody(body).setMessageTime(new Date(System.currentTimeMillis() - late)).setTransactionID(transaction)
            .setRecipNonce(nonce).setSenderNonce(known.nonce);
        if (known.implicit) {
            message.addGeneralInfo(new InfoTypeAndValue(IMPLICIT_CONFIRM, DERNull.INSTANCE));
        }
        PKIMessage sealed;
        if (mac || mac1) {
            message.setSenderKID(asked.getSenderKID().getOctets());
            char[] word = how.equals("wrong-protection") ? "another secret".toCharArray() : secret;
            MacCalculator calculator = mac ? new PKMACBuilder(new JcePKMACValuesCalculator().setProvider(BC)).build(word)
                : new JcePBMac1CalculatorProviderBuilder().setProvider(BC).build().get(asked.getProtectionAlg(), word);
            sealed = message.build(calculator).toASN1Structure();
        } else {
            message.addCMPCertificate(signer);
            boolean false_key = how.equals("wrong-protection") || how.equals("stranger");
            ContentSigner by = new JcaContentSignerBuilder("SHA256withECDSA").setProvider(BC).build(false_key ? otherKey : responderKey);
            sealed = message.build(by).toASN1Structure();
        }
        return sealed.getEncoded();
    }

    X509CertificateHolder issue(X500Name subject, SubjectPublicKeyInfo publicKey) throws Exception {
        long now = System.currentTimeMillis();
        X509v3CertificateBuilder builder = new X509v3CertificateBuilder(ca.getSubject(), new BigInteger(120, RANDOM), new Date(now - 60_000L), new Date(now + 300L * 86_400_000L), subject, publicKey);
        builder.addExtension(Extension.keyUsage, true, new KeyUsage(KeyUsage.nonRepudiation));
        builder.addExtension(Extension.extendedKeyUsage, false, new ExtendedKeyUsage(KeyPurposeId.getInstance(new ASN1ObjectIdentifier("1.3.6.1.5.5.7.3.36"))));
        builder.addExtension(Extension.certificatePolicies, false, new CertificatePolicies(new PolicyInformation(new ASN1ObjectIdentifier("1.3.6.1.4.1.32473.1.5"))));
        JcaX509ExtensionUtils identifiers = new JcaX509ExtensionUtils();
        builder.addExtension(Extension.authorityKeyIdentifier, false, identifiers.createAuthorityKeyIdentifier(ca.getSubjectPublicKeyInfo()));
        return builder.build(new JcaContentSignerBuilder("SHA256withECDSA").setProvider(BC).build(caKey));
    }

    byte[] crl() throws Exception {
        X509v2CRLBuilder builder = new X509v2CRLBuilder(ca.getSubject(), new Date());
        builder.setNextUpdate(new Date(System.currentTimeMillis() + 86_400_000L));
        revoked.forEach((serial, reason) -> builder.addCRLEntry(serial, new Date(), reason));
        return builder.build(new JcaContentSignerBuilder("SHA256withECDSA").setProvider(BC).build(caKey)).getEncoded();
    }

    static ContentVerifierProvider verifier(SubjectPublicKeyInfo key) throws Exception {
        return new JcaContentVerifierProviderBuilder().setProvider(BC).build(key);
    }

    static X509CertificateHolder certificate(File folder, String name) throws Exception {
        return new X509CertificateHolder(Files.readAllBytes(new File(folder, name + ".cer").toPath()));
    }

    static PrivateKey key(File folder, String name) throws Exception {
        byte[] der = Files.readAllBytes(new File(folder, name + ".p8").toPath());
        return KeyFactory.getInstance("EC", BC).generatePrivate(new PKCS8EncodedKeySpec(der));
    }
}
