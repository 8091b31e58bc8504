//! What the API answers when it cannot: a status and `{"error": "…"}`, with `"problems": […]` where there may be
//! several.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::catalog::CatalogError;

/// A refusal.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    /// Each thing that is wrong, where there may be several.
    problems: Vec<String>,
}

impl ApiError {
    /// 400.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    /// 404.
    pub fn missing(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// 404 for a name, with the names there are.
    pub fn not_found<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> ApiError {
        let known: Vec<&str> = known.collect();
        ApiError::missing(format!("no {what} {name:?}; known: {}", known.join(", ")))
    }

    /// 405.
    pub fn method(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// 422.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// 422 for everything that is wrong.
    pub fn problems(problems: Vec<String>) -> ApiError {
        ApiError {
            problems: problems.clone(),
            ..ApiError::invalid(problems.join("; "))
        }
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 503.
    pub fn busy(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 500: ours.
    pub fn bug(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            problems: Vec::new(),
        }
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> ApiError {
        match error {
            CatalogError::Missing(message) => ApiError::missing(message),
            CatalogError::Conflict(message) => ApiError::conflict(message),
            CatalogError::Invalid(message) => ApiError::invalid(message),
            CatalogError::Failed(message) => ApiError::bug(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.message });
        if !self.problems.is_empty() {
            body["problems"] = json!(self.problems);
        }
        (self.status, Json(body)).into_response()
    }
}
