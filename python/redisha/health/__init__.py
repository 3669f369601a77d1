"""Health of the Redis servers: ``state`` judges (pure), ``probe`` asks, ``monitor`` keeps asking."""
