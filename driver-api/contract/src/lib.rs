//! Operations, messages and values that travel over the Busbar waist.
