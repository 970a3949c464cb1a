"""requests-oauthlib: every operation of a client. For metadata and introspection it has a session to ask with, and no calls."""

import requests
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError, InvalidScopeError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from conversation import hear, operation, refused

test = hear()
basic = HTTPBasicAuth(test["client_id"], test["client_secret"])
form = {"client_id": test["client_id"], "client_secret": test["client_secret"]}


def session(scope=None, name=test["client_id"]):
    return OAuth2Session(client=BackendApplicationClient(name, scope=scope))


def token(client, way, secret=test["client_secret"]):
    if way == "basic":
        return client.fetch_token(server["token_endpoint"], auth=HTTPBasicAuth(client.client_id, secret))
    return client.fetch_token(server["token_endpoint"], include_client_id=True, client_secret=secret)


def ask(client, way, endpoint, parameters):
    if way == "basic":
        return client.post(endpoint, data=parameters, auth=basic, withhold_token=True)
    return client.post(endpoint, data={**parameters, **form}, withhold_token=True)


def introspect(client, way, text):
    response = ask(client, way, server["introspection_endpoint"], {"token": text})
    assert response.status_code == 200, response.text
    return response.json()


def status(client):
    return client.get(test["guarded"]).status_code


with operation("metadata"):
    document = session().get(test["issuer"] + "/.well-known/oauth-authorization-server", withhold_token=True)
    server = document.json()
    assert server["issuer"] == test["issuer"]

for way in ["basic", "post"]:
    with operation(f"token, {way}"):
        client = session()
        granted = token(client, way)
        assert granted["token_type"] == "Bearer" and granted["expires_in"] == 3600, granted
        assert granted["scope"] == test["scope"].split(), granted
        assert status(client) == 200
        account = session(name=test["account"])
        assert token(account, way, test["password"])["scope"] == [test["needed"]]

with operation("narrowed scope"):
    # That it was granted what it asked for, the library checks itself.
    client = session([test["other"]])
    assert token(client, "basic")["scope"] == [test["other"]]
    assert status(client) == 403
    client = session([test["needed"]])
    assert token(client, "post")["scope"] == [test["needed"]]
    assert status(client) == 200

with operation("introspection"):
    for way in ["basic", "post"]:
        client = session([test["needed"]])
        text = token(client, way)["access_token"]
        said = introspect(client, way, text)
        assert (said["active"], said["scope"], said["sub"]) == (True, test["needed"], "acme"), said
        assert introspect(client, way, "unknown") == {"active": False}
        # By the token itself, which is how this session asks when nothing else is said.
        assert client.post(server["introspection_endpoint"], data={"token": text}).json() == said

with operation("revocation"):
    for way in ["basic", "post"]:
        client = session()
        text = token(client, way)["access_token"]
        assert status(client) == 200
        for revoked in [text, text, "unknown"]:
            url, headers, body = client._client.prepare_token_revocation_request(
                server["revocation_endpoint"], revoked, **({} if way == "basic" else form)
            )
            response = requests.post(url, headers=headers, data=body, auth=basic if way == "basic" else None)
            assert response.status_code == 200, response.text
        assert status(client) == 401
        assert introspect(client, way, text) == {"active": False}

with operation("invalid_client"):
    for way in ["basic", "post"]:
        with refused(InvalidClientError) as errors:
            token(session(), way, "wrong")
        assert errors[0].status_code == 401 and errors[0].description, errors
    response = requests.post(server["revocation_endpoint"], data={"token": "unknown"}, auth=("acme", "wrong"))
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")

with operation("invalid_scope"):
    for scope in [[test["needed"], "nothing"], ['malformed"']]:
        with refused(InvalidScopeError) as errors:
            token(session(scope), "basic")
        assert errors[0].status_code == 400 and errors[0].description, errors
