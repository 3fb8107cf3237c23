"""How hard the properties are tried: enough to find a fault, few enough for every change."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "bounded",
    max_examples=80,
    deadline=None,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bounded")
