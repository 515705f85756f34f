//! How a service confirms that it accepted a request.
//!
//! A status of 2xx alone does not say who answered: the login page of a proxy and the page of an
//! expired webhook have it too. Types whose service answers in a known form check that form.

use serde_json::Value;

/// The answer with which a service accepts a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Any 2xx. The service answers nothing, plain text, or whatever its users chose, so the body
    /// is not read.
    Status,
    /// An object of JSON with these members. With 201 (Created), which no page has, any object.
    Json(&'static [Member]),
    /// As `Json`, or the text `ok`, with which gateways in front of these services answer.
    JsonOrOk(&'static [Member]),
    /// An empty body.
    Empty,
    /// A body that the type itself parses. A page of HTML or XML is never one.
    Parsed,
}

/// A member of an object that confirms a request: its name and its value.
pub type Member = (&'static str, Is);

/// The value of a [`Member`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Any value but null.
    Present,
    /// True.
    True,
    /// This text.
    Text(&'static str),
}

/// Why a body does not confirm a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It ends within JSON, so the rest of it is lost.
    Cut,
    /// It is not what the service answers.
    Foreign,
}

impl Confirmation {
    /// Whether the body of a 2xx must be read.
    pub fn reads_body(self) -> bool {
        self != Self::Status
    }

    /// Checks the body of a 2xx.
    ///
    /// # Errors
    /// The body is not the answer of the service.
    pub fn check(self, status: u16, body: &[u8]) -> Result<(), Doubt> {
        let text = body.trim_ascii();
        // These two statuses have no body by definition.
        let has_none = text.is_empty() && matches!(status, 204 | 205);
        match self {
            Self::Status => Ok(()),
            Self::Parsed if text.starts_with(b"<") => Err(Doubt::Foreign),
            Self::Parsed => Ok(()),
            _ if has_none => Ok(()),
            Self::JsonOrOk(_) if text.eq_ignore_ascii_case(b"ok") => Ok(()),
            Self::Json(_) if status == 201 => check_object(text, &[]),
            Self::Json(members) | Self::JsonOrOk(members) => check_object(text, members),
            Self::Empty if text.is_empty() => Ok(()),
            Self::Empty => Err(Doubt::Foreign),
        }
    }
}

/// The body as JSON that `T` accepts.
///
/// # Errors
/// The body is not such JSON.
pub fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Doubt> {
    let is_empty = body.trim_ascii().is_empty();
    serde_json::from_slice(body).map_err(|error| match error.is_eof() && !is_empty {
        true => Doubt::Cut,
        false => Doubt::Foreign,
    })
}

fn check_object(body: &[u8], members: &[Member]) -> Result<(), Doubt> {
    let document: Value = parse(body)?;
    let object = document.as_object().ok_or(Doubt::Foreign)?;
    let holds = |(name, is): &Member| match (is, object.get(*name)) {
        (Is::Present, Some(value)) => !value.is_null(),
        (Is::True, Some(value)) => value == true,
        (Is::Text(text), Some(value)) => value == text,
        (_, None) => false,
    };
    match members.iter().all(holds) {
        true => Ok(()),
        false => Err(Doubt::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[Member] = &[("ok", Is::True), ("id", Is::Present)];
    const PAGE: &str = "\n<!DOCTYPE html><title>Sign in</title>";

    #[test]
    fn a_body_confirms_a_request_only_in_the_form_of_the_service() {
        use Confirmation::{Empty, Json, JsonOrOk, Parsed, Status};
        let (cut, foreign) = (Err(Doubt::Cut), Err(Doubt::Foreign));
        for (confirmation, status, body, expected) in [
            (Status, 200, PAGE, Ok(())),
            (Json(OK), 200, r#"{"ok":true,"id":7}"#, Ok(())),
            (Json(OK), 200, r#"{"ok":true,"id":null}"#, foreign),
            (Json(OK), 200, r#"{"ok":"true","id":7}"#, foreign),
            (Json(OK), 200, r#"{"id":7}"#, foreign),
            (Json(OK), 201, "{}", Ok(())),
            (Json(OK), 201, "[]", foreign),
            (Json(OK), 201, PAGE, foreign),
            (Json(OK), 200, r#"[{"ok":true,"id":7}]"#, foreign),
            (Json(OK), 200, r#"{"ok":true,"id":"#, cut),
            (Json(OK), 200, "ok", foreign),
            (Json(OK), 200, "", foreign),
            (Json(OK), 204, "", Ok(())),
            (Json(OK), 200, PAGE, foreign),
            (Json(&[]), 201, "{}", Ok(())),
            (Json(&[("a", Is::Text("b"))]), 200, r#"{"a":"b"}"#, Ok(())),
            (Json(&[("a", Is::Text("b"))]), 200, r#"{"a":"c"}"#, foreign),
            (JsonOrOk(OK), 200, "OK\n", Ok(())),
            (JsonOrOk(OK), 200, "okay", foreign),
            (JsonOrOk(OK), 200, PAGE, foreign),
            (Empty, 200, " \n", Ok(())),
            (Empty, 200, "{}", foreign),
            (Empty, 200, r#"{"a""#, foreign),
            (Empty, 200, PAGE, foreign),
            (Parsed, 200, "1", Ok(())),
            (Parsed, 200, PAGE, foreign),
        ] {
            let got = confirmation.check(status, body.as_bytes());
            assert_eq!(got, expected, "{confirmation:?} {status} {body}");
        }
    }
}
