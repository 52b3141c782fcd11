// A real OpenID provider (npm oidc-provider; 8 is the last that runs on Debian 12's Node) on loopback: one line of JSON in, its issuer out. It knows whoever logs in.
import * as nodeCrypto from 'node:crypto'
import * as http from 'node:http'
import * as readline from 'node:readline'

import { exportJWK, generateKeyPair } from 'jose'
import Provider from 'oidc-provider'

const told = JSON.parse((await readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()).value)
const { privateKey } = await generateKeyPair(told.algorithm, { extractable: true })
const key = { ...(await exportJWK(privateKey)), kid: 'one', alg: told.algorithm, use: 'sig' }

const server = http.createServer()
await new Promise((done) => server.listen(0, '127.0.0.1', done))
const issuer = `http://127.0.0.1:${server.address().port}`

const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  cookies: { keys: [nodeCrypto.randomBytes(32).toString('hex')] },
  clients: [
    {
      client_id: told.client_id,
      client_secret: told.client_secret,
      redirect_uris: [told.redirect_uri],
      id_token_signed_response_alg: told.algorithm,
    },
  ],
  enabledJWA: { idTokenSigningAlgValues: [told.algorithm] },
  claims: { openid: ['sub'], profile: ['name'] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, name: `${id} of the provider` }) }),
})
server.on('request', provider.callback())
process.stdout.write(JSON.stringify({ issuer }) + '\n')
process.stdin.on('end', () => process.exit(0)).resume()
