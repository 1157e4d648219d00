//! EMS ingestion over HTTP for Busbar.
