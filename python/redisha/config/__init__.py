"""The configuration: what it may say (:mod:`~redisha.config.model`) and how it is read (:mod:`~redisha.config.load`).

::

    file ─tree.read─▶ items with places ─▶ envoy.translate    ─▶ native items ─model─▶ Config ─redisha.plan─▶ Plan
                                           dynomite.translate         └─rules──▶ problems and warnings

Pure but for the reading of the file itself and of the secrets it names: no sockets, no event loop, no names resolved.
"""
