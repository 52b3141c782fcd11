// A partner written with openid-client: FAPI 2.0 against the server named in the first line of standard input.
// Prints one JSON object of what happened. Knows nothing of the server but its issuer.
import * as nodeCrypto from 'node:crypto'

// Node 18 has them under other names only.
globalThis.crypto ??= nodeCrypto.webcrypto
globalThis.CryptoKey ??= nodeCrypto.webcrypto.CryptoKey
const client = await import('openid-client')
const dpop = await import('dpop')

const input = JSON.parse(await new Promise((resolve) => {
  let text = ''
  process.stdin.on('data', (part) => (text += part)).on('end', () => resolve(text))
}))
const seen = {}
const insecure = { execute: [client.allowInsecureRequests] } // plain http, on loopback

const key = await crypto.subtle.importKey(
  'jwk', input.key, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'],
)
const config = await client.discovery(
  new URL(input.issuer), input.client_id, undefined, client.PrivateKeyJwt(key),
  { algorithm: 'oauth2', ...insecure },
)
const handle = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'))

async function failed(attempt) {
  try {
    await attempt()
    return 'nothing failed'
  } catch (error) {
    return error.error ?? error.cause?.message ?? error.code ?? error.message
  }
}

// The person's browser: follows redirects until it would leave for the client.
async function browse(url) {
  for (let i = 0; i < 5; i++) {
    const answer = await fetch(url, { redirect: 'manual' })
    url = new URL(answer.headers.get('location') ?? 'error:' + (await answer.text()), url)
    if (url.href.startsWith(input.redirect_uri)) return url
  }
  throw new Error('the browser was sent in circles')
}

async function approve(parameters) {
  const verifier = client.randomPKCECodeVerifier()
  const state = client.randomState()
  const address = await client.buildAuthorizationUrlWithPAR(config, {
    redirect_uri: input.redirect_uri,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    ...parameters,
  }, { DPoP: handle })
  seen.front_channel = [...address.searchParams.keys()].sort()
  const back = await browse(address)
  return { back, checks: { pkceCodeVerifier: verifier, expectedState: state } }
}

const service = await approve({ scope: 'service' })
seen.back = [...service.back.searchParams.keys()].sort()
const tokens = await client.authorizationCodeGrant(config, service.back, service.checks, undefined, { DPoP: handle })
seen.service = { token_type: tokens.token_type, access_token: tokens.access_token, scope: tokens.scope }
const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP: handle })
seen.refreshed = { token_type: refreshed.token_type, same: refreshed.refresh_token === tokens.refresh_token }
seen.reused_code = await failed(() =>
  client.authorizationCodeGrant(config, service.back, service.checks, undefined, { DPoP: handle }))
seen.refresh_after_reuse = await failed(() =>
  client.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP: handle }))

const signing = await approve({ authorization_details: JSON.stringify(input.details) })
const sad = await client.authorizationCodeGrant(config, signing.back, signing.checks, undefined, { DPoP: handle })
seen.credential = {
  token_type: sad.token_type,
  access_token: sad.access_token,
  expires_in: sad.expires_in,
  refresh_token: sad.refresh_token ?? null,
  authorization_details: sad.authorization_details,
}

const forged = await approve({ scope: 'service' })
forged.back.searchParams.set('iss', 'https://evil.example')
seen.forged_issuer = await failed(() =>
  client.authorizationCodeGrant(config, forged.back, forged.checks, undefined, { DPoP: handle }))
forged.back.searchParams.set('iss', input.issuer)
seen.wrong_verifier = await failed(() => client.authorizationCodeGrant(
  config, forged.back, { ...forged.checks, pkceCodeVerifier: 'w'.repeat(43) }, undefined, { DPoP: handle }))
const unbound = await approve({ scope: 'service' })
seen.without_proof = await failed(() => client.authorizationCodeGrant(config, unbound.back, unbound.checks))
seen.front_channel_only = await failed(async () => {
  const address = client.buildAuthorizationUrl(config, { redirect_uri: input.redirect_uri, scope: 'service' })
  const back = await browse(address)
  throw { error: back.searchParams.get('error') }
})

const own = await client.clientCredentialsGrant(config, { scope: 'service' }, { DPoP: handle })
seen.own = { token_type: own.token_type, access_token: own.access_token }

// A proof by another library for a call to the service.
const pair = await dpop.generateKeyPair('ES256')
const call = new URL(input.resource)
seen.proof = {
  text: await dpop.generateProof(pair, call.href, 'POST', undefined, own.access_token),
  thumbprint: await dpop.calculateThumbprint(pair.publicKey),
}
process.stdout.write(JSON.stringify(seen))
