//! AWS clients: the standard environment, endpoint overrides, and SDK errors sorted into ours.
//!
//! Everything the AWS command line understands works here too (environment, profiles, instance roles), and so do
//! `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>`, which the SDK applies itself. The environment is read once
//! per process. The SDK tries a request twice at most: repeating with patience is the runtime's work, which knows
//! about backpressure and shutdown.

use std::fmt::Display;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use millstream_engine::{Error, Result};
use tokio::sync::OnceCell;

/// Attempts of one request inside the SDK: enough to pass over a connection that died while idle.
const ATTEMPTS: u32 = 2;

/// A service that does not accept a connection within this is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One attempt at a small request.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// The slowest line that is of use to an upload: 2 Mbit/s.
const UPLOAD_BYTES_PER_SECOND: u64 = 250_000;

/// S3 puts the parts of a large object together before it answers.
pub const COMPLETE_TIMEOUT: Duration = Duration::from_secs(130);

/// Where a connector's requests go, where the pipeline file says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsOptions {
    /// Region; absent: from the environment.
    pub region: Option<String>,
    /// Address of a service that stands in for AWS; absent: from the environment, else AWS.
    pub endpoint: Option<String>,
}

/// The configuration of this process from the standard environment.
pub async fn config() -> &'static SdkConfig {
    static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    CONFIG
        .get_or_init(|| async {
            aws_config::defaults(BehaviorVersion::latest())
                .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
                .timeout_config(timeouts(ATTEMPT_TIMEOUT))
                .load()
                .await
        })
        .await
}

/// The configuration for one connector. It is an error of configuration when no region is known, which emulators
/// need too, as it is part of every signature. The endpoint of the options is not in it: the SDK would put the
/// environment's before it, so it goes into each service's own configuration.
pub async fn config_for(options: &AwsOptions) -> Result<SdkConfig> {
    let mut config = config().await.to_builder();
    if let Some(region) = &options.region {
        config = config.region(Region::new(region.clone()));
    }
    let config = config.build();
    match config.region() {
        Some(_) => Ok(config),
        None => Err(Error::config(
            "no AWS region is known; set AWS_REGION, or region in the pipeline file, for example us-east-1",
        )),
    }
}

/// An S3 client. Where something stands in for AWS, buckets are addressed by path, since few such services have
/// a host name per bucket.
pub async fn s3(options: &AwsOptions) -> Result<aws_sdk_s3::Client> {
    let config = config_for(options).await?;
    let stand_in = options.endpoint.is_some()
        || config.endpoint_url().is_some()
        || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let mut config = aws_sdk_s3::config::Builder::from(&config)
        .force_path_style(stand_in)
        .timeout_config(timeouts(ATTEMPT_TIMEOUT));
    if let Some(endpoint) = &options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(aws_sdk_s3::Client::from_conf(config.build()))
}

/// For a request that carries `bytes`: longer than others by what a slow line needs, so that a service which forgets to
/// answer is noticed soon all the same.
pub fn upload_timeout(bytes: u64) -> aws_sdk_s3::config::Builder {
    s3_timeout(ATTEMPT_TIMEOUT + Duration::from_secs(bytes / UPLOAD_BYTES_PER_SECOND))
}

/// Overrides how long one attempt at a request may take.
pub fn s3_timeout(attempt: Duration) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::config::Builder::new().timeout_config(timeouts(attempt))
}

/// A CloudWatch client.
pub async fn cloudwatch(options: &AwsOptions) -> Result<aws_sdk_cloudwatch::Client> {
    let config = config_for(options).await?;
    let mut config = aws_sdk_cloudwatch::config::Builder::from(&config);
    if let Some(endpoint) = &options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(aws_sdk_cloudwatch::Client::from_conf(config.build()))
}

/// A Kinesis Data Streams client.
pub async fn kinesis(options: &AwsOptions) -> Result<aws_sdk_kinesis::Client> {
    let config = config_for(options).await?;
    let mut config = aws_sdk_kinesis::config::Builder::from(&config);
    if let Some(endpoint) = &options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(aws_sdk_kinesis::Client::from_conf(config.build()))
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .build()
}

/// Passing troubles that services report with a status below 500.
const RETRY: [&str; 16] = [
    "BandwidthLimitExceeded",
    "InternalFailure",
    "InternalServiceError",
    "InternalServiceFault",
    // The upload was ended by somebody; the whole file is sent again.
    "NoSuchUpload",
    "OperationAborted",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Values that the service will never take.
const DATA: [&str; 8] = [
    "EntityTooLarge",
    "InvalidFormat",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "InvalidParameterValueException",
    "RequestEntityTooLarge",
    "ValidationError",
    "ValidationException",
];

/// Requests that we should not have been able to make.
const BUG: [&str; 7] = [
    "BadDigest",
    "InvalidAction",
    "MalformedXML",
    "MissingParameter",
    "MissingRequiredParameter",
    "SerializationException",
    "XAmzContentSHA256Mismatch",
];

/// Sorts an SDK error by who must act. `doing` says what was tried, as in `writing s3://bucket/key`.
pub fn classify<E>(e: SdkError<E, HttpResponse>, doing: impl Display) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let message = format!("{doing}: {}", describe(&e));
    match &e {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Error::retry(message),
        SdkError::DispatchFailure(_) if lacks_credentials(&message) => Error::config(format!(
            "{message}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or give the host a role"
        )),
        SdkError::DispatchFailure(failure) if failure.is_user() => Error::config(message),
        SdkError::DispatchFailure(_) => Error::retry(message),
        SdkError::ServiceError(of) => {
            let code = of.err().code().unwrap_or_default();
            let response = of.raw();
            match response.status().as_u16() {
                501 => Error::config(format!("{message}; the service does not know this request")),
                408 | 429 | 500.. => Error::Retry {
                    message,
                    after: retry_after(response),
                },
                _ if RETRY.contains(&code) => Error::Retry {
                    message,
                    after: retry_after(response),
                },
                413 => Error::data(message),
                _ if DATA.contains(&code) => Error::data(message),
                _ if BUG.contains(&code) => Error::bug(message),
                _ => Error::config(format!(
                    "{message}; check credentials, permissions, names and region"
                )),
            }
        }
        _ => Error::config(message),
    }
}

/// What the service said, or every cause in turn where it said nothing.
fn describe<E>(e: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let SdkError::ServiceError(of) = e {
        let status = of.raw().status().as_u16();
        let code = of.err().code().unwrap_or("no error code");
        return match of.err().message() {
            Some(message) => format!("{code}: {message} (status {status})"),
            None => format!("{code} (status {status})"),
        };
    }
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

/// The SDK reports missing credentials as a failure to send, distinguishable by text only.
fn lacks_credentials(message: &str) -> bool {
    [
        "no providers in chain provided credentials",
        "the credential provider was not enabled",
    ]
    .iter()
    .any(|known| message.contains(known))
}

fn retry_after(response: &HttpResponse) -> Option<Duration> {
    response
        .headers()
        .get("retry-after")?
        .parse()
        .ok()
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;
    use millstream_engine::ErrorClass;

    use super::*;

    type TestError = SdkError<ErrorMetadata, HttpResponse>;

    fn answer(status: u16, code: &str) -> TestError {
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
        response.headers_mut().insert("retry-after", "7");
        SdkError::service_error(
            ErrorMetadata::builder().code(code).message("why").build(),
            response,
        )
    }

    #[test]
    fn errors_are_sorted_by_who_must_act() {
        let after = Some(Duration::from_secs(7));
        let cases = [
            (answer(400, "Throttling"), ErrorClass::Retry { after }),
            (answer(503, "SlowDown"), ErrorClass::Retry { after }),
            (answer(500, ""), ErrorClass::Retry { after }),
            (answer(429, ""), ErrorClass::Retry { after }),
            (answer(404, "NoSuchUpload"), ErrorClass::Retry { after }),
            (answer(403, "AccessDenied"), ErrorClass::Config),
            (answer(404, "NoSuchBucket"), ErrorClass::Config),
            (answer(301, "PermanentRedirect"), ErrorClass::Config),
            (answer(501, "NotImplemented"), ErrorClass::Config),
            (answer(400, "InvalidParameterValue"), ErrorClass::Data),
            (answer(413, ""), ErrorClass::Data),
            (answer(400, "MalformedXML"), ErrorClass::Bug),
            (SdkError::timeout_error("slow"), ErrorClass::Retry { after: None }),
            (
                SdkError::dispatch_failure(ConnectorError::io("connection refused".into())),
                ErrorClass::Retry { after: None },
            ),
            (
                SdkError::dispatch_failure(ConnectorError::other(
                    "no providers in chain provided credentials".into(),
                    None,
                )),
                ErrorClass::Config,
            ),
            (
                SdkError::construction_failure("invalid bucket name"),
                ErrorClass::Config,
            ),
        ];
        for (e, class) in cases {
            let text = format!("{e:?}");
            let error = classify(e, "writing s3://b/k");
            assert_eq!(error.class(), class, "{text}");
            assert!(error.to_string().starts_with("writing s3://b/k: "), "{error}");
        }
    }

    #[tokio::test]
    async fn a_region_in_the_options_is_enough() {
        let options = AwsOptions {
            region: Some("eu-west-1".into()),
            endpoint: None,
        };
        let config = config_for(&options).await.unwrap();
        assert_eq!(config.region().map(Region::as_ref), Some("eu-west-1"));
    }
}
