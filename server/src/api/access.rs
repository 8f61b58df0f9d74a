//! Whose data a request is about: found out once for every request, before its handler.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::Extensions;
use axum::middleware::Next;
use axum::response::Response;
use connectrpc::ConnectError;

use crate::model::TenantId;

/// The tenants that a request may be about.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// Sorted, each of them once; never none.
    tenants: Arc<[TenantId]>,
}

impl Access {
    /// What [`identify`] found out about a request with these extensions.
    pub(super) fn of(extensions: &Extensions) -> &Self {
        extensions.get().expect("every route is behind the layer that identifies its callers")
    }

    /// Whose data it may read.
    pub(super) fn readable(&self) -> Arc<[TenantId]> {
        Arc::clone(&self.tenants)
    }

    /// Whose data it may add to: a write is one tenant's.
    pub(super) fn writable(&self) -> Result<&TenantId, ConnectError> {
        match &*self.tenants {
            [tenant] => Ok(tenant),
            tenants => Err(ConnectError::invalid_argument(format!(
                "X-Scope-OrgID: expected one tenant to write for, got {}",
                tenants.len()
            ))),
        }
    }
}

/// Notes whose data a request is about. There is one tenant; `X-Scope-OrgID` is accepted and has no meaning.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Access { tenants: [TenantId::anonymous()].into() });
    next.run(request).await
}
