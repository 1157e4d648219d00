//! Its `init` returns an error.

use busbar_bad_common::{Bad, export_bad};

static BAD: Bad = Bad {
    init: |_| Err("no licence file: expected /etc/vendor/licence, found none".into()),
    ..Bad::well_behaved("bad-init-error")
};

export_bad!(BAD);
