"""Values in Redis as django-redis, and where Django has one its own backend, write and read them.

    python3 django_caches.py <unix socket of Redis> set|get

set: each cache stores thing:7 and thing:8; get: prints as JSON which of them each cache still has.
"""

import json
import sys

import django
from django.conf import settings

path, mode = sys.argv[1:]
own = [("django_redis.cache.RedisCache", "django-redis")]
if django.VERSION >= (4, 0):
    own.append(("django.core.cache.backends.redis.RedisCache", "django"))
caches = {"default": {"BACKEND": own[0][0], "LOCATION": f"unix://{path}?db=0"}}
for backend, name in own:
    caches[name] = {"BACKEND": backend, "LOCATION": f"unix://{path}?db=0"}
    caches[name + " shop"] = dict(caches[name], KEY_PREFIX="shop", VERSION=2)
settings.configure(CACHES=caches)

from django.core.cache import caches as configured  # noqa: E402  (after the settings)

left = {}
for name in caches:
    left[name] = []
    for key in ("thing:7", "thing:8"):
        if mode == "set":
            configured[name].set(key, {"of": key})
        if configured[name].get(key):
            left[name].append(key)
print(json.dumps(left))
