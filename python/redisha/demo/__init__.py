"""``redisha demo``: two Redis servers, two sidecars, and a walk through what they do together.

::

    tour ──▶ stage (servers, sidecars, temporary folder; ends them all)   children · servers · sidecars · files
      │────▶ outages (what is killed, and how it heals)
      │────▶ load (writers on disjoint keys)   compare · results (the Sync column)   benchmark (redis-benchmark)
      └────▶ report (what the reader sees: live on a terminal, plain lines elsewhere)

Nothing of this is imported by the running sidecar. redis and rich are imported where they are used.
"""
