//! Speaks a protocol of the next major version.

use busbar_bad_common::{Bad, busbar_contract::PROTOCOL, export_bad, set};

static BAD: Bad = Bad {
    describe: |describe| set(describe, "/protocol/major", (PROTOCOL.major + 1).into()),
    ..Bad::well_behaved("bad-protocol")
};

export_bad!(BAD);
