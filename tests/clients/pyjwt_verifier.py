"""PyJWT's PyJWKClient: fetches the key set and keeps it by itself, for five minutes unless told otherwise."""

import jwt

from verifier import play


def prepare(test):
    client = jwt.PyJWKClient(test["jwks_uri"])

    def kids():
        kept = client.jwk_set_cache.get()
        return kept and [key.key_id for key in kept.keys]

    def verify(token):
        key = client.get_signing_key_from_jwt(token)
        jwt.decode(
            token,
            key,
            algorithms=[test["algorithm"]],
            audience=test["audience"],
            issuer=test["issuer"],
            options={"require": ["exp", "iat", "nbf", "jti", "sub"]},
        )

    return kids, verify


play(prepare, (jwt.InvalidTokenError, jwt.PyJWKClientError))
