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
import java.util.List;
import java.util.Set;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cms.SignerInfoGenerator;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoGeneratorBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.DigestCalculator;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.bouncycastle.tsp.TSPAlgorithms;
import org.bouncycastle.tsp.TSPException;
import org.bouncycastle.tsp.TimeStampRequest;
import org.bouncycastle.tsp.TimeStampResponse;
import org.bouncycastle.tsp.TimeStampResponseGenerator;
import org.bouncycastle.tsp.TimeStampTokenGenerator;
import org.bouncycastle.util.CollectionStore;

/**
 * A time-stamping authority of Bouncy Castle's classes, for tests of a client. `java -cp … TSA.java FOLDER PORT POLICY`.
 *
 * It takes SHA-256 and SHA-512 and one policy, and refuses the rest with the bit that RFC 3161 has for it.
 */
public class TSA {
    static final BouncyCastleProvider BC = new BouncyCastleProvider();
    static final SecureRandom RANDOM = new SecureRandom();

    final X509CertificateHolder certificate;
    final PrivateKey key;
    final ASN1ObjectIdentifier policy;

    TSA(File folder, String policy) throws Exception {
        this.certificate = new X509CertificateHolder(Files.readAllBytes(new File(folder, "tsa.cer").toPath()));
        byte[] pkcs8 = Files.readAllBytes(new File(folder, "tsa.p8").toPath());
        this.key = KeyFactory.getInstance("EC", BC).generatePrivate(new PKCS8EncodedKeySpec(pkcs8));
        this.policy = new ASN1ObjectIdentifier(policy);
    }

    public static void main(String[] arguments) throws Exception {
        TSA tsa = new TSA(new File(arguments[0]), arguments[2]);
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1])), 50);
        server.createContext("/", tsa::answer);
        server.start();
    }

    void answer(HttpExchange exchange) throws java.io.IOException {
        try (exchange) {
            if (!exchange.getRequestMethod().equals("POST")) {
                exchange.sendResponseHeaders(405, -1);
                return;
            }
            byte[] reply = reply(exchange.getRequestBody().readAllBytes());
            exchange.getResponseHeaders().set("Content-Type", "application/timestamp-reply");
            exchange.sendResponseHeaders(200, reply.length);
            exchange.getResponseBody().write(reply);
        } catch (Exception fault) {
            fault.printStackTrace();
        }
    }

    byte[] reply(byte[] query) throws Exception {
        DigestCalculator digest = new JcaDigestCalculatorProviderBuilder().setProvider(BC).build()
            .get(new org.bouncycastle.asn1.x509.AlgorithmIdentifier(TSPAlgorithms.SHA256));
        SignerInfoGenerator signer = new JcaSimpleSignerInfoGeneratorBuilder().setProvider(BC)
            .build("SHA256withECDSA", key, certificate);
        TimeStampTokenGenerator tokens = new TimeStampTokenGenerator(signer, digest, policy);
        tokens.addCertificates(new CollectionStore<>(List.of(certificate)));
        tokens.setAccuracyMillis(500);
        TimeStampResponseGenerator responses = new TimeStampResponseGenerator(
            tokens, Set.of(TSPAlgorithms.SHA256.getId(), TSPAlgorithms.SHA512.getId()), Set.of(policy.getId()));
        TimeStampResponse response;
        try {
            response = responses.generate(new TimeStampRequest(query), new BigInteger(63, RANDOM), new Date());
        } catch (TSPException | java.io.IOException refused) {
            response = responses.generateRejectedResponse(refused);
        }
        return response.getEncoded();
    }
}
