//! A console with tokens, and requests to it.

use std::fs;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tidings_rig::{Process, Rig, Role, eventually, free_port};

use crate::TIDINGS;

/// The token with the role view.
pub const VIEW: &str = "the-view-token-0123456789";
/// The token with the role operate.
pub const OPERATE: &str = "the-operate-token-0123456789";

/// Every path of the API that is read.
pub const PATHS: [&str; 11] = [
    "/api/session",
    "/api/overview",
    "/api/providers",
    "/api/alerts",
    "/api/deliveries",
    "/api/audit",
    "/api/dead",
    "/api/dead/1",
    "/api/dead/count",
    "/api/trace",
    "/api/events",
];

/// A role with a console at this address, which needs no token.
pub fn with_console(role: Role, address: &str) -> Role {
    role.args(["--console", address])
}

/// A free address on loopback.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// A running console that needs tokens.
pub struct Console {
    pub rig: Rig,
    pub up: Process,
    pub address: String,
    pub client: Client,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.expect("the answer is complete"),
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("the answer is JSON")
    }

    /// Status and code of an error.
    pub fn error(&self) -> (u16, String) {
        let code = self.json()["code"].as_str().unwrap_or_default().to_owned();
        (self.status, code)
    }

    /// The value of a header; empty without one.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap_or_default())
    }
}

impl Console {
    /// A rig with `tidings up` and a console, with a token of each role.
    pub async fn start() -> Self {
        let rig = Rig::start(TIDINGS).await;
        Self::start_on(rig).await
    }

    /// The same on a rig that has rules already.
    pub async fn start_on(rig: Rig) -> Self {
        let address = free_address();
        let file = |name: &str, text: String| {
            let path = rig.folder().join(name);
            fs::write(&path, text).expect("the folder is writable");
            path.display().to_string()
        };
        let view = file("view", format!("ann {VIEW}\n"));
        let operate = file("operate", format!("bob {OPERATE}\n"));
        let role = with_console(Role::up(), &address)
            .env("TIDINGS_CONSOLE__TOKENS__VIEW", &view)
            .env("TIDINGS_CONSOLE__TOKENS__OPERATE", &operate)
            .env("TIDINGS_CONSOLE__HOSTS", "tidings.example.com");
        let up = rig.run(role).await;
        let client = Client::builder().no_proxy().build();
        Self {
            rig,
            up,
            address,
            client: client.expect("the client's settings are valid"),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url)
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        Answer::of(request.send().await.expect("the console answers")).await
    }

    /// The answer to a viewer.
    pub async fn get(&self, path: &str) -> Answer {
        let request = self.request(Method::GET, path).bearer_auth(VIEW);
        self.send(request).await
    }

    /// A request with a body.
    pub fn post(&self, path: &str, token: &str, body: &Value) -> RequestBuilder {
        let request = self.request(Method::POST, path).bearer_auth(token);
        request.json(body)
    }

    /// The JSON for an operator who does something.
    pub async fn act(&self, path: &str, body: &Value) -> Value {
        let answer = self.send(self.post(path, OPERATE, body)).await;
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()
    }

    /// The JSON for a viewer.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Waits until the JSON for a viewer has what is found in it.
    pub async fn eventually<T>(&self, path: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        eventually("the console shows it", async || {
            found(&self.json(path).await)
        })
        .await
    }
}
