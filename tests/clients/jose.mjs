// jose: verifies with the key set that it fetches and keeps by itself, for ten minutes unless told otherwise.

import assert from 'node:assert/strict'
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import { hear, say } from './conversation.mjs'

// The time of day is the gateway's, so that the library's cache ages with it.
let now
const RealDate = Date
globalThis.Date = class extends RealDate {
  constructor(...parts) {
    super(...(parts.length === 0 ? [now] : parts))
  }

  static now() {
    return now
  }
}

const { jwks_uri, issuer, audience, algorithm } = await hear()
const keys = createRemoteJWKSet(new URL(jwks_uri))
const options = { issuer, audience, algorithms: [algorithm], typ: 'at+jwt', requiredClaims: ['exp', 'iat', 'jti', 'sub'] }

for (let step; (step = await hear()); ) {
  now = step.now * 1000
  const kept = keys.fresh
  const known = kept && keys.jwks().keys.map(({ kid }) => kid)
  for (const token of step.good) {
    // It would fetch for an unknown kid, and hide that the key was published too late.
    assert.ok(!kept || known.includes(decodeProtectedHeader(token).kid), 'a kid that was not published in time')
    await jwtVerify(token, keys, options)
  }
  for (const token of step.bad) {
    await assert.rejects(jwtVerify(token, keys, options), { name: /^J(OSE|WT|WS|WK)/ })
  }
  say({ kept })
}
process.exit()
