//! What a connection needs, made from the settings at each connect: certificate files may have changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use busbar_driver_api::{Error, Link, Result, Secret, blocking};
use busbar_ems_http::client::{Common, header, header_name};
use busbar_ems_http::{AnswerForm, Body, Client, Endpoint, Limits};
use busbar_sink_kit::settings::duration;
use busbar_sink_kit::shown::{BadValue, Test};

use crate::collect::Style;
use crate::quality::Words;
use crate::settings::Settings;
use crate::sink::Ems;

/// Most samples of a batch, unless a single record has more. Half of the host's default window (`queue.in_flight`), so
/// that the next batch gathers while one is on its way.
pub(crate) const MAX_SAMPLES: u64 = 2500;
/// Most bytes of a batch before compression, unless a single record has more.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Longest token file.
const MAX_TOKEN: u64 = 64 * 1024;

/// Where the token comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    None,
    Fixed(Secret),
    File(PathBuf),
}

/// Everything that does not change while connected.
#[derive(Debug)]
pub(crate) struct Setup {
    pub client: Client,
    pub endpoints: Vec<Endpoint>,
    pub token: Source,
    pub form: AnswerForm,
    pub style: Style,
    pub sink: String,
    pub limits: Limits,
    pub batch_wait: Duration,
    pub timeout: Duration,
    pub retry_delay: Duration,
    pub token_retry: Duration,
}

impl Setup {
    /// Reads settings and certificate files; CHECK has refused what fails here, but for the files.
    pub(crate) async fn new(link: &Link<Ems>) -> Result<Self> {
        let settings = &link.settings;
        let time = |key: &str, text: &str| {
            duration(text).ok_or_else(|| Error::configuration(format!("{key}: expected a time, as \"30s\"")))
        };
        let endpoints = endpoints(settings)?;
        let common = common(settings)?;
        let files = settings.tls.clone().unwrap_or_default().into();
        let with_tls = endpoints.iter().any(Endpoint::is_tls);
        let client =
            blocking(move || Client::new(common, &files, with_tls)).await?.map_err(|error| match error {
                busbar_ems_http::Error::Configuration(text) => Error::configuration(text),
                other => Error::session(other.to_string()),
            })?;
        let body = Body::new(&settings.body.skeleton()).map_err(|problems| {
            let texts = problems.iter().map(|problem| format!("body{problem}"));
            Error::configuration(texts.collect::<Vec<_>>().join("; "))
        })?;
        Ok(Self {
            client,
            endpoints,
            token: match (&settings.token_file, &settings.token) {
                (Some(file), _) => Source::File(file.clone()),
                (None, Some(token)) => Source::Fixed(token.clone()),
                (None, None) => Source::None,
            },
            form: settings.answer.form(),
            style: Style {
                body,
                gateway: settings.gateway_id.clone().unwrap_or_else(|| link.host.clone()),
                words: Words::new(&settings.quality),
                bad_value: BadValue::parse(&link.bad_value).unwrap_or(BadValue::Null),
                test: Test::parse(&link.test),
            },
            sink: link.name.clone(),
            limits: Limits { records: settings.batch_max.max(1), samples: MAX_SAMPLES, bytes: MAX_BYTES },
            batch_wait: time("batch_wait", &settings.batch_wait)?,
            timeout: time("timeout", &settings.timeout)?,
            retry_delay: time("retry_delay", &settings.retry_delay)?,
            token_retry: time("token_retry", &settings.token_retry)?,
        })
    }
}

fn endpoints(settings: &Settings) -> Result<Vec<Endpoint>> {
    let parse = |(_, url): (String, &str)| Endpoint::parse(url, &settings.path).map_err(Error::configuration);
    settings.url.list().into_iter().map(parse).collect()
}

fn common(settings: &Settings) -> Result<Common> {
    let headers = settings.headers.iter().map(|(name, value)| header(name, value.expose()));
    Ok(Common {
        headers: headers.collect::<Result<_, _>>().map_err(Error::configuration)?,
        key_header: header_name(&settings.key_header).map_err(Error::configuration)?,
        token_header: header_name(&settings.token_header).map_err(Error::configuration)?,
        token_prefix: settings.token_prefix.clone(),
        gzip: settings.gzip,
    })
}

impl Source {
    /// The token of now. `Err`: one sentence without the token.
    pub(crate) async fn read(&self) -> Result<Option<Secret>, String> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::File(path) => {
                let path = path.clone();
                blocking(move || read_file(&path)).await.map_err(|error| error.to_string())?.map(Some)
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, String> {
    let bad = |found: String| format!("cannot read token_file {}: {found}", path.display());
    let text = busbar_kit::file::read(path, MAX_TOKEN).map_err(bad)?;
    let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
    match !token.is_empty() && token.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        true => Ok(Secret::new(token.to_owned())),
        false => Err(bad("expected one line of printable ASCII".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        assert!(read_file(&file).unwrap_err().contains("cannot read token_file"));
        for (text, token) in [("abc\n", Some("abc")), ("  a b \r\n", Some("a b")), ("", None), ("\n", None)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_file(&file).ok().as_ref().map(Secret::expose), token, "{text:?}");
        }
        for secret in [b"hunter2\nX: y".to_vec(), b"hunter2\xff".to_vec(), vec![b'x'; 70_000]] {
            std::fs::write(&file, secret).unwrap();
            let error = read_file(&file).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
