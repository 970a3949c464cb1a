// openid-client: every operation of a client, with a configuration that is discovered for each way to authenticate.

import assert from 'node:assert/strict'
import * as client from 'openid-client'
import { hear, operation } from './conversation.mjs'

const test = await hear()
const ways = { basic: client.ClientSecretBasic, post: client.ClientSecretPost }
const found = {}
const wrong = {}

function guarded(configuration, text) {
  return client.fetchProtectedResource(configuration, text, new URL(test.guarded), 'GET')
}

/** Whether this is the error of a challenge with these parameters. */
function challenge(scheme, error) {
  return ({ cause }) => cause[0].scheme === scheme && cause[0].parameters.error === error
}

await operation('metadata', async () => {
  const options = { algorithm: 'oauth2' }
  for (const [name, way] of Object.entries(ways)) {
    const issuer = new URL(test.issuer)
    found[name] = await client.discovery(issuer, test.client_id, undefined, way(test.client_secret), options)
    wrong[name] = await client.discovery(issuer, test.client_id, undefined, way('wrong'), options)
    assert.equal(found[name].serverMetadata().issuer, test.issuer)
  }
})

for (const name of Object.keys(ways)) {
  await operation(`token, ${name}`, async () => {
    const granted = await client.clientCredentialsGrant(found[name])
    assert.equal(granted.token_type, 'bearer')
    assert.equal(granted.expires_in, 3600)
    assert.equal(granted.scope, test.scope)
    assert.equal((await guarded(found[name], granted.access_token)).status, 200)
    const metadata = found[name].serverMetadata()
    const account = new client.Configuration(metadata, test.account, undefined, ways[name](test.password))
    assert.equal((await client.clientCredentialsGrant(account)).scope, test.needed)
  })
}

await operation('narrowed scope', async () => {
  const granted = await client.clientCredentialsGrant(found.basic, { scope: test.other })
  assert.equal(granted.scope, test.other)
  await assert.rejects(guarded(found.basic, granted.access_token), challenge('bearer', 'insufficient_scope'))
  const narrow = await client.clientCredentialsGrant(found.post, { scope: test.needed })
  assert.equal(narrow.scope, test.needed)
  assert.equal((await guarded(found.post, narrow.access_token)).status, 200)
})

await operation('introspection', async () => {
  const granted = await client.clientCredentialsGrant(found.basic, { scope: test.needed })
  for (const configuration of Object.values(found)) {
    const said = await client.tokenIntrospection(configuration, granted.access_token)
    assert.equal(said.active, true)
    assert.equal(said.scope, test.needed)
    assert.equal(said.sub, 'acme')
    assert.deepEqual(await client.tokenIntrospection(configuration, 'unknown'), { active: false })
  }
})

await operation('revocation', async () => {
  for (const configuration of Object.values(found)) {
    const { access_token } = await client.clientCredentialsGrant(configuration)
    assert.equal((await guarded(configuration, access_token)).status, 200)
    for (const text of [access_token, access_token, 'unknown']) {
      await client.tokenRevocation(configuration, text, { token_type_hint: 'access_token' })
    }
    await assert.rejects(guarded(configuration, access_token), challenge('bearer', 'invalid_token'))
    assert.deepEqual(await client.tokenIntrospection(configuration, access_token), { active: false })
  }
})

await operation('invalid_client', async () => {
  for (const configuration of Object.values(wrong)) {
    // A 401 has a challenge (RFC 6749 §5.2), and the library reads that first.
    const refusal = await client.clientCredentialsGrant(configuration).catch((error) => error)
    assert.ok(refusal instanceof client.WWWAuthenticateChallengeError, refusal)
    assert.equal(refusal.cause[0].scheme, 'basic')
    assert.equal((await refusal.response.json()).error, 'invalid_client')
    await assert.rejects(client.tokenIntrospection(configuration, 'unknown'), challenge('basic'))
    await assert.rejects(client.tokenRevocation(configuration, 'unknown'), challenge('basic'))
  }
})

await operation('invalid_scope', async () => {
  for (const scope of [`${test.needed} nothing`, 'malformed"']) {
    const refusal = await client.clientCredentialsGrant(found.basic, { scope }).catch((error) => error)
    assert.ok(refusal instanceof client.ResponseBodyError, refusal)
    assert.equal(refusal.error, 'invalid_scope')
    assert.equal(refusal.status, 400)
    assert.ok(refusal.error_description)
  }
})

process.exit()
