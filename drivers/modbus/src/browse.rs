//! `busbar browse DEVICE [RANGE ...]`: Modbus has no directory, so ranges are tried and what answers is printed as points.

use busbar_driver_api::serde_json::json;
use busbar_driver_api::{Error, Pages, Result};
use busbar_modbus::Session;
use busbar_modbus::call::Answer;
use busbar_modbus::scan::{Found, Range, Scanner, parse_range};

use crate::driver::error;

/// Tried when no range is given: where most devices begin.
const DEFAULT_RANGES: [&str; 4] = ["holding:0-124", "input:0-124", "coil:0-63", "discrete:0-63"];

pub(crate) async fn browse(
    session: &mut Session,
    unit: u8,
    arguments: &[String],
    pages: &mut Pages,
) -> Result<()> {
    let mut scanner = Scanner::new(unit, &ranges(arguments)?);
    while let Some(found) = scanner.next(session).await.map_err(|failure| error(&failure))? {
        match &found.answer {
            Answer::Words(words) => {
                for (index, word) in words.iter().enumerate() {
                    push(pages, &found, index, "uint16", json!(word)).await?;
                }
            }
            Answer::Bits(bits) => {
                for (index, bit) in bits.iter().take(usize::from(found.count)).enumerate() {
                    push(pages, &found, index, "bool", json!(bit)).await?;
                }
            }
            Answer::Written => {}
        }
        // Page by page, so that the operator sees a slow line progress.
        pages.flush().await?;
    }
    Ok(())
}

fn ranges(arguments: &[String]) -> Result<Vec<Range>> {
    let texts: Vec<&str> = if arguments.is_empty() {
        DEFAULT_RANGES.to_vec()
    } else {
        arguments.iter().map(String::as_str).collect()
    };
    texts
        .into_iter()
        .map(|text| parse_range(text).map_err(|wrong| Error::configuration(wrong.to_string())))
        .collect()
}

async fn push(
    pages: &mut Pages,
    found: &Found,
    index: usize,
    kind: &str,
    value: busbar_driver_api::serde_json::Value,
) -> Result<()> {
    let table = found.address.table;
    let offset = usize::from(found.address.offset) + index;
    let entry = json!({
        "name": format!("{table}_{offset}"),
        "address": format!("{table}:{offset}"),
        "type": kind,
        "value": value,
    });
    pages.push(entry).await
}
