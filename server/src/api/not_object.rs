//! JSON messages that are arrays. The generated readers would take one for the message's fields in their order, which is
//! no form of a message: whoever sends it means something else.

use connectrpc::interceptor::{Interceptor, Next, UnaryRequest, UnaryResponse};
use connectrpc::{CodecFormat, ConnectError};

pub(super) struct NotObject;

#[connectrpc::async_trait]
impl Interceptor for NotObject {
    async fn intercept_unary(
        &self,
        request: UnaryRequest,
        next: Next<'_>,
    ) -> Result<UnaryResponse, ConnectError> {
        let first = || request.payload.bytes().iter().find(|byte| !byte.is_ascii_whitespace());
        if request.payload.format() == CodecFormat::Json && first() == Some(&b'[') {
            return Err(ConnectError::invalid_argument("request body: expected a JSON object, got an array"));
        }
        next.run(request).await
    }
}
