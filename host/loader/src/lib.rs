//! Loading Busbar plugins without trusting the file.
