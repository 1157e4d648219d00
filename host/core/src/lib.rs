//! Host core of Busbar: a pure state machine for scheduling, quality, routing and commands.
