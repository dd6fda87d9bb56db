"""Create a tenant for the replay and print its id and an operator key of it; $SCRIP_PLATFORM_KEY says we may."""

import os
import sys

from api import Api

api = Api(sys.argv[1], os.environ["SCRIP_PLATFORM_KEY"])
tenant = api.post("/v1/tenants", {"name": "The Complete Journey", "currency": "USD", "time_zone": "UTC"}).json()
key = api.post(f"/v1/tenants/{tenant['id']}/api-keys", {"name": "journey", "scope": "OPERATOR"}).json()
print(tenant["id"], key["secret"])
