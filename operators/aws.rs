//! AWS clients: the standard credentials, endpoint overrides, roles, and SDK errors sorted into ours.
//!
//! Credentials come from the environment, profiles (with sso and credential_process), web identity, and the roles of
//! containers and instances, as for the AWS command line; `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>` are applied by
//! the SDK itself. The environment is read once per process; a connector's [`AwsOptions`] go before it. The SDK tries a
//! request twice at most: repeating with patience is the runtime's work, which knows about backpressure and shutdown.

use std::fmt::Display;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use millstream_engine::secret::Secret;
use millstream_engine::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};
use url::Url;

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

/// Where a connector's requests go and in whose name, where the pipeline file says so. Connectors flatten it into their
/// own options, so every connector has these keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct AwsOptions {
    /// AWS region. Absent: from the environment.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub region: Option<String>,
    /// Address of a service that stands in for AWS, `http://host:port`. Absent: from the environment, else AWS.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The role in which requests are made. It is assumed with the credentials of the environment. Absent: requests are
    /// made with those credentials themselves.
    #[serde(default)]
    pub assume_role: Option<AssumeRole>,
}

/// A role that is assumed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRole {
    /// The role, `arn:aws:iam::<account>:role/<name>`.
    #[schemars(regex(pattern = r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$"))]
    pub role_arn: String,
    /// What the role's owner demands to be named. It is never printed.
    #[serde(default)]
    #[schemars(length(min = 2))]
    pub external_id: Option<Secret>,
    /// What the session is called in the owner's records.
    #[serde(default = "session_name")]
    #[schemars(regex(pattern = r"^[\w+=,.@-]{2,64}$"))]
    pub session_name: String,
}

fn session_name() -> String {
    "millstream".into()
}

impl AwsOptions {
    /// Reads `region=…&endpoint=…&role_arn=…&external_id=…&session_name=…`.
    pub fn from_query(query: &str) -> Result<AwsOptions> {
        let mut keys = serde_json::Map::new();
        let mut role = serde_json::Map::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = serde_json::Value::from(value.into_owned());
            match &*key {
                "region" | "endpoint" => keys.insert(key.into_owned(), value),
                "role_arn" | "external_id" | "session_name" => role.insert(key.into_owned(), value),
                _ => {
                    return Err(Error::config(format!(
                        "unknown key {key:?}; known keys: region, endpoint, role_arn, external_id, session_name"
                    )));
                }
            };
        }
        if !role.is_empty() {
            keys.insert("assume_role".into(), role.into());
        }
        millstream_engine::source::options(&keys.into())
    }

    /// Checks without side effects what the clients would refuse.
    pub fn check(&self) -> Result<()> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(());
        };
        let wrong =
            |why: &str| Error::config(format!("endpoint: {why}; write http://host:port or https://host"));
        let url = Url::parse(endpoint).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("names no http or https host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "names a user, but requests are signed with AWS credentials",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has more than a path behind the host"));
        }
        Ok(())
    }
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
/// environment's before it, so it goes into each service's own configuration. Roles are therefore assumed at the
/// environment's endpoint.
pub async fn config_for(options: &AwsOptions) -> Result<SdkConfig> {
    options.check()?;
    let mut config = config().await.to_builder();
    if let Some(region) = &options.region {
        config = config.region(Region::new(region.clone()));
    }
    let config = config.build();
    let Some(region) = config.region() else {
        return Err(Error::config(
            "no AWS region is known; set AWS_REGION, or region in the pipeline file, for example us-east-1",
        ));
    };
    let Some(role) = &options.assume_role else {
        return Ok(config);
    };
    let provider = assumed(role, region, &config).await;
    Ok(config.to_builder().credentials_provider(provider).build())
}

/// The credentials of a role, which all clients of the process share: it is assumed once, not for every client. No
/// request is made before the first client needs them.
async fn assumed(role: &AssumeRole, region: &Region, config: &SdkConfig) -> SharedCredentialsProvider {
    type Roles = Vec<((AssumeRole, Region), SharedCredentialsProvider)>;
    /// As many as pipeline files name.
    static ROLES: Mutex<Roles> = Mutex::const_new(Vec::new());
    let mut roles = ROLES.lock().await;
    let key = (role.clone(), region.clone());
    if let Some((_, provider)) = roles.iter().find(|(known, _)| *known == key) {
        return provider.clone();
    }
    let mut provider = AssumeRoleProvider::builder(&role.role_arn)
        .session_name(&role.session_name)
        .configure(config);
    if let Some(id) = &role.external_id {
        provider = provider.external_id(id.expose());
    }
    let provider = SharedCredentialsProvider::new(provider.build().await);
    roles.push((key, provider.clone()));
    provider
}

/// Defines the function that makes a service's client.
macro_rules! client {
    ($(#[$doc:meta])* $name:ident, $sdk:ident) => {
        $(#[$doc])*
        pub async fn $name(options: &AwsOptions) -> Result<$sdk::Client> {
            let mut config = $sdk::config::Builder::from(&config_for(options).await?);
            if let Some(endpoint) = &options.endpoint {
                config = config.endpoint_url(endpoint);
            }
            Ok($sdk::Client::from_conf(config.build()))
        }
    };
}

client! {
    /// A CloudWatch client.
    cloudwatch, aws_sdk_cloudwatch
}
client! {
    /// A DynamoDB client.
    dynamodb, aws_sdk_dynamodb
}
client! {
    /// A Firehose client.
    firehose, aws_sdk_firehose
}
client! {
    /// A Glue client.
    glue, aws_sdk_glue
}
client! {
    /// A Kinesis client.
    kinesis, aws_sdk_kinesis
}
client! {
    /// A client of the Redshift Data API.
    redshift_data, aws_sdk_redshiftdata
}
client! {
    /// An SQS client.
    sqs, aws_sdk_sqs
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

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .build()
}

/// Passing troubles that services report with a status below 500.
const RETRY: [&str; 19] = [
    "BandwidthLimitExceeded",
    "InternalFailure",
    "InternalServiceError",
    "InternalServiceFault",
    "KMSThrottlingException",
    "LimitExceededException",
    // The upload was ended by somebody; the whole file is sent again.
    "NoSuchUpload",
    "OperationAborted",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
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
        SdkError::DispatchFailure(_) if refused_role(&message) => {
            Error::config(format!("{message}; check assume_role and whom the role trusts"))
        }
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

/// So it does with a role that may not be assumed.
fn refused_role(message: &str) -> bool {
    message.contains("loading credentials") && message.contains("(AccessDenied)")
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
                SdkError::dispatch_failure(ConnectorError::other(
                    "an error occurred while loading credentials: unhandled error (AccessDenied)".into(),
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
            ..AwsOptions::default()
        };
        let config = config_for(&options).await.unwrap();
        assert_eq!(config.region().map(Region::as_ref), Some("eu-west-1"));
    }
}
