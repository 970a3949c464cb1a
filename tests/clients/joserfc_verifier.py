"""joserfc: finds the key in a KeySet, which the program fetches and keeps."""

import json

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from verifier import Kept, play


def prepare(test):
    kept = Kept(test["jwks_uri"], lambda document: KeySet.import_key_set(json.loads(document)))

    def verify(token):
        decoded = jwt.decode(token, kept.get(), algorithms=[test["algorithm"]])
        # The registry takes the time of day when it is made.
        registry = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": test["issuer"]},
            aud={"essential": True, "value": test["audience"]},
            exp={"essential": True},
            nbf={"essential": True},
        )
        registry.validate(decoded.claims)

    return kept.kids, verify


play(prepare, JoseError)
