//! Routes of the admin listener.
//!
//! `/healthz`, `/readyz` and `/metrics` are open; `/api` needs the bearer token, except GET with `anonymous_read`. What
//! changes something (POST) always needs the token and is audited with the client's address.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use busbar_contract::{Action, Answer, Origin, Stage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    auth::Token,
    metrics::{self, Figures},
    process::Process,
};
use crate::{
    control::{
        protocol::{Call, Line},
        service,
    },
    edge::{CoreHandle, NotAnswered},
    rows,
};

/// Largest body of a request, bytes.
const MAX_BODY: usize = 64 * 1024;

/// Parked records in one answer when nothing else is asked.
const PARKED_PAGE: usize = 100;

/// What the routes need.
#[derive(Clone)]
pub struct App {
    /// The way to the core.
    pub core: CoreHandle,
    /// Guards `/api`.
    pub token: Token,
    /// GET needs no token.
    pub anonymous_read: bool,
    /// When the host started.
    pub started: Instant,
}

/// Who is connected; put into every request by the listener.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The routes.
pub fn router(app: App) -> Router {
    let app = Arc::new(app);
    let api = Router::new()
        .route("/points", get(points))
        .route("/points/{device}/{point}", get(point))
        .route("/points/{device}/{point}/command", post(command))
        .route("/points/{device}/{point}/block", post(block))
        .route("/points/{device}/{point}/unblock", post(unblock))
        .route("/points/{device}/{point}/substitute", post(substitute))
        .route("/devices/{device}/maintenance", post(maintenance))
        .route("/plugins/{name}/restart", post(restart))
        .route("/reload", post(reload))
        .route("/devices", get(devices))
        .route("/plugins", get(plugins))
        .route("/sinks", get(sinks))
        .route("/sinks/{sink}/parked", get(parked))
        .route("/sinks/{sink}/parked/retry", post(retry_parked))
        .route("/sinks/{sink}/parked/discard", post(discard_parked))
        .route("/commands/lock", post(lock))
        .route("/commands/unlock", post(unlock))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), authorize));
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(document))
        .nest("/api/v1", api)
        .fallback(not_found)
        .with_state(app)
}

type Shared = State<Arc<App>>;

fn error(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(json!({ "error": text.into() }))).into_response()
}

async fn not_found() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "expected /healthz, /readyz, /metrics, /api/v1/{points,devices,plugins,sinks} or POST /api/v1/reload",
    )
}

async fn authorize(State(app): Shared, headers: HeaderMap, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if app.token.allows(sent) || (reads && app.anonymous_read && sent.is_none()) {
        return next.run(request).await;
    }
    let text = "expected the header Authorization: Bearer TOKEN with the token in data_dir/admin.token";
    let mut response = error(StatusCode::UNAUTHORIZED, text);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    response
}

async fn health(State(app): Shared) -> Response {
    match app.core.query(|_, _| ()).await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

#[derive(Deserialize)]
struct Strict {
    strict: Option<String>,
}

async fn ready(State(app): Shared, Query(query): Query<Strict>) -> Response {
    let strict = query.strict.is_some_and(|text| !matches!(text.as_str(), "false" | "0"));
    let answer = app.core.query(move |core, _| core.ready(strict)).await;
    match answer.map_err(|error| error.to_string()).and_then(|ready| ready) {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn document(State(app): Shared) -> Response {
    let asked = app.core.query(|core, _| {
        let names: Vec<(String, usize)> =
            core.plugins().iter().map(|plugin| (plugin.name.to_owned(), plugin.index)).collect();
        (core.metrics(), names)
    });
    let Ok((core, names)) = asked.await else {
        return error(StatusCode::SERVICE_UNAVAILABLE, NotAnswered.to_string());
    };
    let facts = app.core.plugin_facts();
    let plugins =
        names.into_iter().map(|(name, index)| (name, facts.get(index).cloned().unwrap_or_default()));
    let figures = Figures {
        core,
        plugins: plugins.collect(),
        turns: app.core.turns(),
        process: Process::read(),
        uptime: app.started.elapsed(),
    };
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(figures)).into_response()
}

#[derive(Deserialize)]
struct OfDevice {
    device: Option<String>,
}

async fn points(State(app): Shared, Query(query): Query<OfDevice>) -> Response {
    let asked = app.core.query(move |core, _| service::points(core, query.device.as_deref()));
    match asked.await {
        Ok(Ok(rows)) => Json(rows).into_response(),
        Ok(Err(text)) => error(StatusCode::NOT_FOUND, text),
        Err(error_) => error(StatusCode::SERVICE_UNAVAILABLE, error_.to_string()),
    }
}

async fn point(State(app): Shared, Path((device, point)): Path<(String, String)>) -> Response {
    let name = format!("{device}/{point}");
    let row =
        app.core.query(move |core, _| core.point(&name).map(|view| rows::point(&view)).ok_or(name)).await;
    match row {
        Ok(Ok(row)) => Json(row).into_response(),
        Ok(Err(name)) => error(StatusCode::NOT_FOUND, format!("expected a configured point, found {name}")),
        Err(error_) => error(StatusCode::SERVICE_UNAVAILABLE, error_.to_string()),
    }
}

fn rows_response(rows: Result<Vec<Value>, NotAnswered>) -> Response {
    rows.map_or_else(
        |error_| error(StatusCode::SERVICE_UNAVAILABLE, error_.to_string()),
        |rows| Json(rows).into_response(),
    )
}

async fn devices(State(app): Shared) -> Response {
    rows_response(app.core.query(|core, _| rows::devices(core)).await)
}

async fn plugins(State(app): Shared) -> Response {
    let facts = app.core.plugin_facts();
    let board = app.core.board();
    rows_response(app.core.query(move |core, _| rows::plugins(core, &facts, &board)).await)
}

async fn sinks(State(app): Shared) -> Response {
    rows_response(app.core.sinks().await)
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

async fn parked(
    State(app): Shared,
    Path(sink): Path<String>,
    Query(Page { from, limit }): Query<Page>,
) -> Response {
    match service::parked(&app.core, &sink, from, limit.unwrap_or(PARKED_PAGE)).await {
        Ok(rows) => Json(rows).into_response(),
        Err(Line::Failed { text, usage: true }) => error(StatusCode::NOT_FOUND, text),
        Err(Line::Failed { text, usage: false }) => error(StatusCode::SERVICE_UNAVAILABLE, text),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "this is a bug of Busbar"),
    }
}

async fn retry_parked(State(app): Shared, Path(sink): Path<String>, request: Request) -> Response {
    run(&app, Call::DecideParked { sink, retry: true }, origin(&request)).await
}

async fn discard_parked(State(app): Shared, Path(sink): Path<String>, request: Request) -> Response {
    run(&app, Call::DecideParked { sink, retry: false }, origin(&request)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandBody {
    #[serde(default)]
    value: Value,
    #[serde(default = "operate")]
    action: Action,
    #[serde(default)]
    deadline_ms: u64,
}

const fn operate() -> Action {
    Action::Operate
}

async fn command(
    State(app): Shared,
    Path((device, point)): Path<(String, String)>,
    request: Request,
) -> Response {
    let origin = origin(&request);
    let CommandBody { value, action, deadline_ms } = match body(request, "{\"value\": ...}").await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let call = Call::Command { point: format!("{device}/{point}"), action, value, deadline_ms };
    run(&app, call, origin).await
}

async fn lock(State(app): Shared, request: Request) -> Response {
    run(&app, Call::Lock {}, origin(&request)).await
}

async fn unlock(State(app): Shared, request: Request) -> Response {
    run(&app, Call::Unlock {}, origin(&request)).await
}

type OfPoint = Path<(String, String)>;

async fn block(State(app): Shared, Path((device, point)): OfPoint, request: Request) -> Response {
    run(&app, Call::Block { point: format!("{device}/{point}") }, origin(&request)).await
}

async fn unblock(State(app): Shared, Path((device, point)): OfPoint, request: Request) -> Response {
    run(&app, Call::Unblock { point: format!("{device}/{point}") }, origin(&request)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubstituteBody {
    value: Value,
}

async fn substitute(State(app): Shared, Path((device, point)): OfPoint, request: Request) -> Response {
    let origin = origin(&request);
    match body::<SubstituteBody>(request, "{\"value\": ...}").await {
        Ok(SubstituteBody { value }) => {
            run(&app, Call::Substitute { point: format!("{device}/{point}"), value }, origin).await
        }
        Err(refusal) => refusal,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaintenanceBody {
    on: bool,
}

async fn maintenance(State(app): Shared, Path(device): Path<String>, request: Request) -> Response {
    let origin = origin(&request);
    match body::<MaintenanceBody>(request, "{\"on\": true} or {\"on\": false}").await {
        Ok(MaintenanceBody { on }) => run(&app, Call::Maintenance { device, on }, origin).await,
        Err(refusal) => refusal,
    }
}

async fn restart(
    State(app): Shared,
    Path(name): Path<String>,
    Query(OfKind { kind }): Query<OfKind>,
    request: Request,
) -> Response {
    run(&app, Call::PluginRestart { name, kind }, origin(&request)).await
}

#[derive(Deserialize)]
struct OfKind {
    kind: Option<String>,
}

async fn bytes_of(request: Request) -> Result<Bytes, Response> {
    to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
        error(StatusCode::PAYLOAD_TOO_LARGE, format!("expected a body of at most {MAX_BODY} bytes"))
    })
}

fn parsed<T: serde::de::DeserializeOwned>(bytes: &[u8], expected: &str) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|found| format!("expected {expected} as JSON, found: {found}"))
}

/// The body of a request, or the answer that says what it should be.
async fn body<T: serde::de::DeserializeOwned>(request: Request, expected: &str) -> Result<T, Response> {
    parsed(&bytes_of(request).await?, expected).map_err(|text| error(StatusCode::BAD_REQUEST, text))
}

/// The same where no body means the defaults.
async fn optional_body<T: serde::de::DeserializeOwned + Default>(
    request: Request,
    expected: &str,
) -> Result<T, Response> {
    let bytes = bytes_of(request).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    parsed(&bytes, expected).map_err(|text| error(StatusCode::BAD_REQUEST, text))
}

fn origin(request: &Request) -> Origin {
    // The port changes with every connection; a selection belongs to the client, not to its connection.
    let client = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string()).unwrap_or_default();
    Origin { sink: "api".into(), client, ..Origin::default() }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct ReloadBody {
    dry_run: bool,
}

/// The answer of `busbar reload --json`; the status says whether the files are in force, or would be.
async fn reload(State(app): Shared, request: Request) -> Response {
    let origin = origin(&request);
    let ReloadBody { dry_run } = match optional_body(request, "nothing or {\"dry_run\": true}").await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let answer = app.core.wish_reload(dry_run, origin).await;
    let status = if answer.ok {
        StatusCode::OK
    } else if !answer.error.is_empty() {
        StatusCode::SERVICE_UNAVAILABLE
    } else if answer.summary.is_null() {
        // The files have errors.
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        // Rolled back.
        StatusCode::CONFLICT
    };
    (status, Json(answer)).into_response()
}

/// Runs a call to its end and answers with the last line.
async fn run(app: &App, call: Call, origin: Origin) -> Response {
    let mut running = service::start(&app.core, call, origin).await;
    let mut last = None;
    while let Some(line) = running.next().await {
        last = Some(line);
    }
    match last {
        Some(Line::Stage { answer }) => (status(&answer), Json(answer)).into_response(),
        Some(Line::Done) => Json(json!({ "done": true })).into_response(),
        Some(Line::Rows { mut rows }) if rows.len() == 1 => Json(rows.remove(0)).into_response(),
        Some(Line::Failed { text, usage: true }) => error(StatusCode::NOT_FOUND, text),
        Some(Line::Failed { text, usage: false }) => error(StatusCode::SERVICE_UNAVAILABLE, text),
        _ => error(StatusCode::INTERNAL_SERVER_ERROR, "the host gave no answer: this is a bug of Busbar"),
    }
}

/// A command that was not executed is no success, and one that nobody knows of is neither.
const fn status(answer: &Answer) -> StatusCode {
    match answer.stage {
        Stage::Selected | Stage::Accepted | Stage::Finished => StatusCode::OK,
        Stage::Refused => StatusCode::CONFLICT,
        Stage::Unknown => StatusCode::GATEWAY_TIMEOUT,
    }
}
