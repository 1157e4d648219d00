//! What the plants of all tests have in common: a plugin in the configuration, and what it says about itself.
#![allow(dead_code, reason = "each test binary uses a part")]

use busbar_contract::{
    Describe,
    describe::{PluginKind, Protocol, Schemas, SinkTraits},
};
use busbar_core::model::{Isolation, MEMORY_LIMIT, Plugin};

pub(crate) fn plugin(name: &str, kind: PluginKind) -> Plugin {
    Plugin {
        name: name.into(),
        kind,
        path: None,
        sha256: None,
        isolation: Isolation::InProcess,
        workers: 1,
        memory_limit: MEMORY_LIMIT,
    }
}

pub(crate) fn describe(name: &str, kind: PluginKind, durable: bool) -> Describe {
    Describe {
        name: name.into(),
        kind,
        version: "1".into(),
        description: String::new(),
        protocol: Protocol { major: 1, minor: 0 },
        needs: 0,
        sdk: "1".into(),
        rustc: String::new(),
        build: String::new(),
        unwind: true,
        ops: Vec::new(),
        schemas: Schemas::default(),
        reasons: vec!["none".into(), "too large".into()],
        sink: SinkTraits { durable, ..SinkTraits::default() },
    }
}
