//! Who asks and whose data a request is about: found out once for every request, before its handler.

mod credentials;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use connectrpc::{ConnectError, ErrorCode};

use super::App;
use super::body;
use super::class::Class;
use super::cors;
use super::error::ApiError;
use crate::config::Config;
use crate::model::TenantId;
use crate::reload::Watched;
use crate::telemetry;
use crate::tokens::{Reach, Right, Token, Tokens};

/// The header that names tenants, as Pyroscope has it.
pub(super) const TENANT_HEADER: &str = "x-scope-orgid";
/// How many tenants one request may name.
const MAX_TENANTS: usize = 100;

const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Basic realm=\"spanflame\", charset=\"UTF-8\""),
    HeaderValue::from_static("Bearer realm=\"spanflame\""),
];

/// The tenants that a request may be about.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// Sorted, each of them once; none for a request that may not read.
    readable: Arc<[TenantId]>,
    writable: Result<TenantId, ConnectError>,
    administered: Result<TenantId, ConnectError>,
}

impl Access {
    /// What [`identify`] found out about a request with these extensions.
    pub(super) fn of(extensions: &Extensions) -> &Self {
        extensions.get().expect("every route is behind the layer that identifies its callers")
    }

    /// Whose data it may read.
    pub(super) fn readable(&self) -> Arc<[TenantId]> {
        Arc::clone(&self.readable)
    }

    /// The tenant that a request is about, if it is about one.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        one(&self.readable).ok().or(self.writable.as_ref().ok())
    }

    /// The one tenant whose data it may read, for what is not asked of several.
    pub(super) fn single(&self) -> Result<&TenantId, ConnectError> {
        one(&self.readable)
    }

    /// Whose data it may remove.
    pub(super) fn administered(&self) -> Result<&TenantId, ConnectError> {
        self.administered.as_ref().map_err(Clone::clone)
    }

    /// Whose data it may add to: a write is one tenant's.
    pub(super) fn writable(&self) -> Result<&TenantId, ConnectError> {
        self.writable.as_ref().map_err(Clone::clone)
    }
}

fn one(tenants: &[TenantId]) -> Result<&TenantId, ConnectError> {
    match tenants {
        [tenant] => Ok(tenant),
        tenants => Err(ConnectError::invalid_argument(format!(
            "X-Scope-OrgID: expected exactly one tenant, got {}",
            tenants.len()
        ))),
    }
}

/// Who may come in.
pub(super) struct Door {
    multi_tenant: bool,
    /// Origins whose pages may push.
    origins: Vec<String>,
    /// Tokens of the configuration and of the file that it names; none where nobody has to log in.
    tokens: Option<(Tokens, Option<Arc<Watched<Tokens>>>)>,
}

/// Why a request goes no further.
#[derive(Debug)]
struct Refusal {
    error: ConnectError,
    /// Whether a token would help.
    challenge: bool,
}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Self {
        Self { error, challenge: false }
    }
}

impl Door {
    /// The door of a server with these settings, and the tokens of its file.
    pub(super) fn new(config: &Config, file: Option<Arc<Watched<Tokens>>>) -> Self {
        let tokens = config.authenticates().then(|| (config.tokens.clone(), file));
        Self { multi_tenant: config.multi_tenant, origins: config.cors_origins.clone(), tokens }
    }

    /// Whether requests have to bring a token.
    pub(super) fn is_locked(&self) -> bool {
        self.tokens.is_some()
    }

    fn admit(&self, class: Class, headers: &HeaderMap) -> Result<Access, Refusal> {
        if let (Class::Ingest, Some(origin)) = (class, cors::stranger(headers, &self.origins)) {
            return Err(ConnectError::permission_denied(format!(
                "origin: a page of {origin:?} may not push; add it to cors_origins if it is yours"
            ))
            .into());
        }
        if matches!(class, Class::Ready | Class::Page) {
            let nobody = || Err(ConnectError::permission_denied(""));
            return Ok(Access { readable: [].into(), writable: nobody(), administered: nobody() });
        }
        let token = self.authenticate(headers)?;
        let token = token.as_deref();
        if let (Class::Metrics, Some(token)) = (class, token) {
            let reach = token.reach(Right::Read);
            if self.multi_tenant && reach != Reach::All || !reach.covers(&TenantId::anonymous()) {
                return Err(lacks(token, Right::Read, "all tenants, which metrics are about").into());
            }
        }
        let named = if self.multi_tenant { named(headers) } else { Ok(Some(vec![TenantId::anonymous()])) };
        let tenants = |right| named.clone().and_then(|named| tenants(named, token, right));
        let writable = tenants(Right::Write).and_then(|tenants| one(&tenants).cloned());
        let readable = match (class, tenants(Right::Read)) {
            (Class::Query, readable) => readable?,
            (_, readable) => readable.unwrap_or_default(),
        };
        if class == Class::Ingest {
            writable.as_ref().map_err(Clone::clone)?;
        }
        // Whoever comes to a server without tokens may be any page or program of its machine.
        let administered = match token {
            Some(_) => tenants(Right::Admin).and_then(|tenants| one(&tenants).cloned()),
            None => Err(ConnectError::permission_denied(
                "this needs a token with the right admin, and the server has no tokens",
            )),
        };
        if class == Class::Admin {
            administered.as_ref().map_err(Clone::clone)?;
        }
        Ok(Access { readable, writable, administered })
    }

    /// The token that a request brings; none where it needs none.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Arc<Token>>, Refusal> {
        let Some((own, file)) = &self.tokens else { return Ok(None) };
        let refuse =
            |message: &str| Refusal { error: ConnectError::unauthenticated(message), challenge: true };
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(refuse("authorization: this server wants a token, as bearer or as basic password"));
        };
        let secret = credentials::secret(value.as_bytes()).ok_or_else(|| {
            refuse("authorization: expected Bearer TOKEN, or Basic with the token as password")
        })?;
        let found = own.find(&secret).or_else(|| file.as_ref().and_then(|file| file.get().find(&secret)));
        found.map(Some).ok_or_else(|| refuse("authorization: the token is not known"))
    }
}

/// The tenants of a right: those that the request names, if the token's reach has them, else those of the token.
fn tenants(
    named: Option<Vec<TenantId>>,
    token: Option<&Token>,
    right: Right,
) -> Result<Arc<[TenantId]>, ConnectError> {
    let reach = token.map_or(Reach::All, |token| token.reach(right));
    match (named, reach, token) {
        (Some(named), reach, token) => {
            if let (Some(token), Some(other)) = (token, named.iter().find(|tenant| !reach.covers(tenant))) {
                return Err(lacks(token, right, &format!("tenant {:?}", other.as_str())));
            }
            Ok(named.into())
        }
        (None, Reach::Some(tenants), Some(token)) if tenants.is_empty() => {
            Err(lacks(token, right, "any tenant"))
        }
        (None, Reach::Some(tenants), _) => Ok(tenants),
        (None, Reach::All, _) => Err(ConnectError::unauthenticated(
            "X-Scope-OrgID: this server keeps several tenants; name the one whose data is meant",
        )),
    }
}

fn lacks(token: &Token, right: Right, what: &str) -> ConnectError {
    ConnectError::permission_denied(format!(
        "the token {:?} lacks the right {} for {what}",
        token.name(),
        right.as_str()
    ))
}

/// The tenants that `X-Scope-OrgID` names, sorted, each of them once; none if it names none.
fn named(headers: &HeaderMap) -> Result<Option<Vec<TenantId>>, ConnectError> {
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let Some(value) = values.next().filter(|value| !value.is_empty()) else { return Ok(None) };
    let invalid = |what: String| ConnectError::invalid_argument(format!("X-Scope-OrgID: {what}"));
    if values.next().is_some() {
        return Err(invalid("given more than once; put | between tenants".to_owned()));
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut tenants = Vec::new();
    for id in text.split('|') {
        tenants.push(TenantId::new(id.trim()).map_err(|error| invalid(error.to_string()))?);
        if tenants.len() > MAX_TENANTS {
            return Err(invalid(format!("names more than {MAX_TENANTS} tenants")));
        }
    }
    tenants.sort_unstable();
    tenants.dedup();
    Ok(Some(tenants))
}

/// Finds out who asks and whose data a request is about, or refuses it.
pub(super) async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let class = Class::of(&request);
    match app.door.admit(class, request.headers()) {
        Ok(access) => {
            let tenant = access.tenant().filter(|_| app.config.multi_tenant).cloned();
            request.extensions_mut().insert(access);
            telemetry::for_tenant(tenant, next.run(request)).await
        }
        Err(Refusal { error, challenge }) => {
            let reason = match error.code {
                ErrorCode::Unauthenticated => "unauthenticated",
                ErrorCode::PermissionDenied => "permission_denied",
                _ => "tenant",
            };
            app.metrics.refuse(reason);
            tracing::debug!(reason, path = request.uri().path(), error = error.message, "request refused");
            // The page asks for the token itself, and does not want the browser to ask first.
            let from_page = request.headers().contains_key("x-requested-with");
            body::skim(request.into_body()).await;
            let mut response = ApiError::from(error).into_response();
            if challenge {
                for value in CHALLENGES.into_iter().skip(usize::from(from_page)) {
                    response.headers_mut().append(header::WWW_AUTHENTICATE, value);
                }
            }
            response
        }
    }
}

#[cfg(test)]
mod tests;
