"""``redisha demo``: two Redis servers, two sidecars, and a walk through what they do together.

::

    group_tour ──▶ members (the group) · contest (clients of both sides at one counter) · group_checks
    tour ────────▶ outages (what is killed, and how it heals) · load (writers on disjoint keys) · compare      (--envoy)
         both ───▶ stage (servers, sidecars, temporary folder; ends them all)   children · servers · sidecars · files
                   results (the Sync column)   rates · benchmark (redis-benchmark)
                   report (what the reader sees: live on a terminal, plain lines elsewhere)   play (what to try)

Nothing of this is imported by the running sidecar. redis and rich are imported where they are used.
"""
