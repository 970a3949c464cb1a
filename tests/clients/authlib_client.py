"""Authlib: every operation of a client, by the session that it makes of requests."""

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url

from conversation import hear, operation, refused

test = hear()
WAYS = {"basic": "client_secret_basic", "post": "client_secret_post"}


def session(way, secret=None):
    secret = secret or test["client_secret"]
    return OAuth2Session(test["client_id"], secret, token_endpoint_auth_method=WAYS[way])


def token(client, **parameters):
    return client.fetch_token(server["token_endpoint"], grant_type="client_credentials", **parameters)


def introspect(client, text):
    response = client.introspect_token(server["introspection_endpoint"], token=text)
    assert response.status_code == 200, response.text
    return response.json()


def status(client):
    return client.get(test["guarded"]).status_code


with operation("metadata"):
    document = session("basic").request(
        "GET", get_well_known_url(test["issuer"], external=True), withhold_token=True
    )
    server = AuthorizationServerMetadata(document.json())
    assert server["issuer"] == test["issuer"]
    server.validate()
    # Why src/oauth/metadata.rs lists a response type.
    for less in [{k: v for k, v in server.items() if k != "response_types_supported"},
                 {**server, "response_types_supported": []}]:
        with refused(ValueError):
            AuthorizationServerMetadata(less).validate()

for way in WAYS:
    with operation(f"token, {way}"):
        client = session(way)
        granted = token(client)
        assert granted["token_type"] == "Bearer" and granted["expires_in"] == 3600, granted
        assert granted["scope"] == test["scope"], granted
        assert status(client) == 200
        account = OAuth2Session(test["account"], test["password"], token_endpoint_auth_method=WAYS[way])
        assert token(account)["scope"] == test["needed"]

with operation("narrowed scope"):
    client = session("basic")
    assert token(client, scope=test["other"])["scope"] == test["other"]
    assert status(client) == 403
    client = session("post")
    assert token(client, scope=test["needed"])["scope"] == test["needed"]
    assert status(client) == 200

with operation("introspection"):
    for way in WAYS:
        client = session(way)
        text = token(client, scope=test["needed"])["access_token"]
        said = introspect(client, text)
        assert (said["active"], said["scope"], said["sub"]) == (True, test["needed"], "acme"), said
        assert introspect(client, "unknown") == {"active": False}

with operation("revocation"):
    for way in WAYS:
        client = session(way)
        text = token(client)["access_token"]
        assert status(client) == 200
        for revoked in [text, text, "unknown"]:
            response = client.revoke_token(server["revocation_endpoint"], token=revoked)
            assert response.status_code == 200, response.text
        assert status(client) == 401
        assert introspect(client, text) == {"active": False}

with operation("invalid_client"):
    for way in WAYS:
        client = session(way, "wrong")
        with refused(OAuthError) as errors:
            token(client)
        assert errors[0].error == "invalid_client" and errors[0].description, errors
        for response in [
            client.introspect_token(server["introspection_endpoint"], token="unknown"),
            client.revoke_token(server["revocation_endpoint"], token="unknown"),
        ]:
            assert (response.status_code, response.json()["error"]) == (401, "invalid_client")

with operation("invalid_scope"):
    for scope in [f"{test['needed']} nothing", 'malformed"']:
        with refused(OAuthError) as errors:
            token(session("basic"), scope=scope)
        assert errors[0].error == "invalid_scope" and errors[0].description, errors
