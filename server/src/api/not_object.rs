//! Refuses JSON messages with arrays where objects belong, which the generated readers would take for something.

use connectrpc::interceptor::{Interceptor, Next, UnaryRequest, UnaryResponse};
use connectrpc::{CodecFormat, ConnectError};

use crate::json;

pub(super) struct NotObject;

#[connectrpc::async_trait]
impl Interceptor for NotObject {
    async fn intercept_unary(
        &self,
        request: UnaryRequest,
        next: Next<'_>,
    ) -> Result<UnaryResponse, ConnectError> {
        if request.payload.format() == CodecFormat::Json {
            json::check(request.payload.bytes())
                .map_err(|what| ConnectError::invalid_argument(format!("request body: {what}")))?;
        }
        next.run(request).await
    }
}
