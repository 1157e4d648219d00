//! Names of users, for the audit log.

/// Larger files are not searched: the number is shown instead.
const MAX_PASSWD: u64 = 1024 * 1024;

/// The name of a user id, or `uid 1000` where it has none here.
pub(super) fn name(uid: u32) -> String {
    let small = std::fs::metadata("/etc/passwd").is_ok_and(|metadata| metadata.len() <= MAX_PASSWD);
    let passwd =
        if small { std::fs::read_to_string("/etc/passwd").unwrap_or_default() } else { String::new() };
    find(&passwd, uid).map_or_else(|| format!("uid {uid}"), str::to_owned)
}

fn find(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\n:x:5:\nop:x:1000:1000:Operator:/home/op:/bin/sh\n";
        assert_eq!(find(passwd, 0), Some("root"));
        assert_eq!(find(passwd, 1000), Some("op"));
        assert_eq!(find(passwd, 5), None);
        assert_eq!(name(4_000_000_000), "uid 4000000000");
    }
}
