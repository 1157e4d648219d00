//! `active = { from, to, days, zone }` of a device: from text to minutes, and back.

use busbar_core::{
    hours::{ALL_DAYS, DAY_MINUTES, is_zone},
    model::Active,
};

use crate::{
    context::Context,
    host::Reader,
    problem::Path,
    tree::{Node, Table},
    write,
};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Reads the table, whose forms were checked before; what is wrong beyond them is reported.
pub(crate) fn read(cx: &Context<'_>, path: &Path<'_>, table: &Table) -> Option<Active> {
    let read = Reader { cx, path, table };
    let from = time(&read, "from", DAY_MINUTES - 1);
    let to = time(&read, "to", DAY_MINUTES);
    let zone = read.text("zone").unwrap_or_else(|| "UTC".to_owned());
    let known = is_zone(&zone);
    if let Some(node) = table.get("zone").filter(|_| !known) {
        cx.problems
            .error(Some(node.pos), path.key("zone"), "a time zone such as \"Europe/Madrid\"", cx.found(node))
            .help("names of the IANA time zone database");
    }
    let days = days(&read);
    let (from, to) = (from?, to?);
    if let Some(node) = table.get("to").filter(|_| from == to) {
        cx.problems
            .error(Some(node.pos), path.key("to"), "another time than `from`", cx.found(node))
            .help("all day: from = \"00:00\", to = \"24:00\", or no `active`; never: enabled = false");
        return None;
    }
    known.then_some(Active { from, to, days: days?, zone })
}

fn time(read: &Reader<'_, '_>, key: &str, last: u16) -> Option<u16> {
    let node = read.table.get(key)?;
    let text = read.text(key)?;
    let minute = parse(&text).filter(|minute| *minute <= last);
    if minute.is_none() {
        let expected = format!("a time of day from \"00:00\" to \"{}\"", show_time(last));
        read.cx.problems.error(Some(node.pos), read.path.key(key), expected, read.cx.found(node));
    }
    minute
}

fn parse(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<u16>().ok())?
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    (minute < 60).then_some(hour * 60 + minute)
}

fn days(read: &Reader<'_, '_>) -> Option<u8> {
    let Some(node) = read.table.get("days") else { return Some(ALL_DAYS) };
    let items = node.as_array()?;
    let path = read.path.key("days");
    let day = |item: &Node| {
        let text = read.cx.text(&path, item)?;
        DAYS.iter().position(|day| **day == *text)
    };
    let days = items.iter().filter_map(day).fold(0, |days, day| days | (1 << day));
    if items.is_empty() {
        read.cx
            .problems
            .error(Some(node.pos), path, "at least one day", "none")
            .help("never: enabled = false");
    }
    (days != 0).then_some(days)
}

fn show_time(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// As TOML.
pub(crate) fn show(active: &Active) -> String {
    let days: Vec<String> = (0..)
        .zip(DAYS)
        .filter(|(at, _)| active.days & (1 << at) != 0)
        .map(|(_, day)| write::text(day))
        .collect();
    format!(
        "{{ from = \"{}\", to = \"{}\", days = [{}], zone = {} }}",
        show_time(active.from),
        show_time(active.to),
        days.join(", "),
        write::text(&active.zone)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_two_digits_each() {
        assert_eq!(parse("22:05"), Some(22 * 60 + 5));
        assert_eq!(parse("24:00"), Some(DAY_MINUTES));
        for wrong in ["", "7:00", "07:0", "07:60", "07.00", "+7:00", "0700", "07:00:00"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        let active = Active { from: 1320, to: 360, days: 0b10001, zone: "Europe/Madrid".into() };
        let expected =
            "{ from = \"22:00\", to = \"06:00\", days = [\"mon\", \"fri\"], zone = \"Europe/Madrid\" }";
        assert_eq!(show(&active), expected);
    }
}
