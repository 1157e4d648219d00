//! EMS sink over HTTP for Busbar: configuration and glue.
