"""The lab server: devices of one computer, shared by everybody in the lab who has a token (docs/lab-server.md).

    config            devices.toml
    labfile           lab.sqlite beside the job store, and a clock that never goes back
    tokens, audit, reservations   what is in lab.sqlite
    budgets, estimates            what an owner may still use, and when a job would run
    lab               the devices of a configuration, opened on one job store
    app, door, gate, bodies, answers, problems, streams, routes_*   the same over HTTP
    serve, commands   `glauber serve`, `glauber token`, `glauber audit`

Nothing else in glauber imports fastapi, and importing this package does not either.
"""
