"""Writes each key of a JWK Set as FOLDER/<kid>.pem: `python3 jwks_to_pem.py https://gateway.example/.well-known/jwks.json FOLDER`."""

import pathlib
import sys

import requests
from jwcrypto import jwk

url, folder = sys.argv[1:]
response = requests.get(url, timeout=30)
response.raise_for_status()
for key in jwk.JWKSet.from_json(response.text)["keys"]:
    pathlib.Path(folder, f"{key.key_id}.pem").write_bytes(key.export_to_pem())
