"""jwcrypto: finds the key in a JWKSet, which the program fetches and keeps."""

from jwcrypto import jwk, jwt
from jwcrypto.common import JWException

from verifier import Kept, play


def prepare(test):
    kept = Kept(test["jwks_uri"], jwk.JWKSet.from_json)
    claims = {"iss": test["issuer"], "aud": test["audience"], "exp": None, "nbf": None, "sub": None}

    def verify(token):
        jwt.JWT(jwt=token, key=kept.get(), algs=[test["algorithm"]], expected_type="JWS", check_claims=claims)

    return kept.kids, verify


# What is no JWT at all is a ValueError.
play(prepare, (JWException, ValueError))
