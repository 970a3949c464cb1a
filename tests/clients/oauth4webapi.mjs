// oauth4webapi: every operation of a client, each by the calls that the library has for it.

import assert from 'node:assert/strict'
import * as oauth from 'oauth4webapi'
import { hear, operation } from './conversation.mjs'

const test = await hear()
const issuer = new URL(test.issuer)
const client = { client_id: test.client_id }
const basic = oauth.ClientSecretBasic(test.client_secret)
const post = oauth.ClientSecretPost(test.client_secret)
let server

async function token(authentication, parameters = {}) {
  const response = await oauth.clientCredentialsGrantRequest(server, client, authentication, parameters)
  return oauth.processClientCredentialsResponse(server, client, response)
}

async function introspect(authentication, text) {
  const response = await oauth.introspectionRequest(server, client, authentication, text)
  return oauth.processIntrospectionResponse(server, client, response)
}

function guarded(text) {
  return oauth.protectedResourceRequest(text, 'GET', new URL(test.guarded))
}

await operation('metadata', async () => {
  const response = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' })
  server = await oauth.processDiscoveryResponse(issuer, response)
  // And from a challenge alone (RFC 9728 §5).
  const refusal = await guarded('none').catch((error) => error)
  assert.ok(refusal instanceof oauth.WWWAuthenticateChallengeError, refusal)
  const described = new URL(refusal.cause[0].parameters.resource_metadata)
  assert.equal(described.pathname, '/.well-known/oauth-protected-resource')
  const resource = await oauth.processResourceDiscoveryResponse(issuer, await oauth.resourceDiscoveryRequest(issuer))
  assert.deepEqual(resource.authorization_servers, [test.issuer])
})

for (const [name, authentication] of [['token, basic', basic], ['token, post', post]]) {
  await operation(name, async () => {
    const granted = await token(authentication)
    assert.equal(granted.token_type, 'bearer')
    assert.equal(granted.expires_in, 3600)
    assert.equal(granted.scope, test.scope)
    assert.equal((await guarded(granted.access_token)).status, 200)
    const account = { client_id: test.account }
    const way = name.endsWith('basic') ? oauth.ClientSecretBasic : oauth.ClientSecretPost
    const response = await oauth.clientCredentialsGrantRequest(server, account, way(test.password), {})
    assert.equal((await oauth.processClientCredentialsResponse(server, account, response)).scope, test.needed)
  })
}

await operation('narrowed scope', async () => {
  const granted = await token(basic, { scope: test.other })
  assert.equal(granted.scope, test.other)
  await assert.rejects(guarded(granted.access_token), (error) => {
    const { scheme, parameters } = error.cause[0]
    return scheme === 'bearer' && parameters.error === 'insufficient_scope'
  })
  const narrow = await token(post, { scope: test.needed })
  assert.equal(narrow.scope, test.needed)
  assert.equal((await guarded(narrow.access_token)).status, 200)
})

await operation('introspection', async () => {
  const granted = await token(basic, { scope: test.needed })
  for (const authentication of [basic, post]) {
    const said = await introspect(authentication, granted.access_token)
    assert.equal(said.active, true)
    assert.equal(said.scope, test.needed)
    assert.equal(said.sub, 'acme')
    assert.equal(said.iss, test.issuer)
    assert.deepEqual(await introspect(authentication, 'unknown'), { active: false })
  }
})

await operation('revocation', async () => {
  for (const authentication of [basic, post]) {
    const { access_token } = await token(authentication)
    assert.equal((await guarded(access_token)).status, 200)
    for (const text of [access_token, access_token, 'unknown']) {
      const response = await oauth.revocationRequest(server, client, authentication, text)
      assert.equal(await oauth.processRevocationResponse(response), undefined)
    }
    await assert.rejects(guarded(access_token), (error) => error.cause[0].parameters.error === 'invalid_token')
    assert.deepEqual(await introspect(authentication, access_token), { active: false })
  }
})

await operation('invalid_client', async () => {
  for (const wrong of [oauth.ClientSecretBasic('wrong'), oauth.ClientSecretPost('wrong')]) {
    // A 401 has a challenge (RFC 6749 §5.2), and the library reads that first.
    const refusal = await token(wrong).catch((error) => error)
    assert.ok(refusal instanceof oauth.WWWAuthenticateChallengeError, refusal)
    assert.equal(refusal.cause[0].scheme, 'basic')
    assert.equal((await refusal.response.json()).error, 'invalid_client')
    await assert.rejects(introspect(wrong, 'unknown'), oauth.WWWAuthenticateChallengeError)
    const response = await oauth.revocationRequest(server, client, wrong, 'unknown')
    await assert.rejects(oauth.processRevocationResponse(response), oauth.WWWAuthenticateChallengeError)
  }
})

await operation('invalid_scope', async () => {
  for (const scope of [`${test.needed} nothing`, 'malformed"']) {
    const refusal = await token(basic, { scope }).catch((error) => error)
    assert.ok(refusal instanceof oauth.ResponseBodyError, refusal)
    assert.equal(refusal.error, 'invalid_scope')
    assert.equal(refusal.status, 400)
    assert.ok(refusal.error_description)
  }
})

process.exit()
