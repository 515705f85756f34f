//! The body of Slack's incoming webhooks, which Discord and Rocket.Chat accept too.

use serde_json::{Value, json};

use super::fit::{Unit, fit};
use crate::message::Message;
use crate::message::render::Link;
use crate::text::{cut_utf16, without_half_entity};

/// The differences between the services: colors and sizes. Sizes of single texts are in
/// UTF-16 code units.
pub struct SlackForm {
    /// The color of everything but errors.
    pub info: &'static str,
    /// The color of errors.
    pub error: &'static str,
    /// The longest name of sender or object.
    pub longest_name: usize,
    /// The longest text of the attachment, and the longest fallback.
    pub longest_text: usize,
    /// The longest value of a field; titles may be as long as names.
    pub longest_value: usize,
    /// The most fields.
    pub most_fields: usize,
    /// How links are shown.
    pub links: Links,
    /// The longest total of name, text and fields of the attachment.
    pub longest_attachment: usize,
    /// How the total and the fallback are counted.
    pub unit: Unit,
    /// What a field adds to the total besides its title and value.
    pub around_a_field: usize,
}

/// How links are shown.
#[derive(Clone, Copy, PartialEq)]
pub enum Links {
    /// As buttons below the attachment.
    Buttons,
    /// In one field, as Markdown.
    Field,
}

/// The sender and the channel of a message.
pub struct Sender<'a> {
    /// The sender's name, if the service allows one.
    pub username: &'a str,
    /// The channel, if the service allows another than the webhook's.
    pub channel: &'a str,
    /// The text for clients that do not show attachments.
    pub fallback: &'a str,
}

impl SlackForm {
    /// The body for a message.
    pub fn body(&self, message: &Message<'_>, sender: &Sender<'_>) -> Value {
        let author = cut_utf16(&message.title(), self.longest_name);
        let text = cut_utf16(message.text(), self.longest_text);
        let links = if self.links == Links::Field {
            message.markdown_links("")
        } else {
            String::new()
        };
        let link_field = Some(("Links", links.as_str())).filter(|(_, links)| !links.is_empty());
        let fields = link_field
            .into_iter()
            .chain(message.shown_fields())
            .take(self.most_fields);
        let fields = fields.map(|(key, value)| {
            (
                cut_utf16(key, self.longest_name),
                cut_utf16(value, self.longest_value),
            )
        });
        let fitted = fit(
            self.unit,
            self.longest_attachment - (self.unit.size)(&author),
            &text,
            fields,
            self.around_a_field,
        );
        let field = |(title, value)| json!({ "title": title, "value": value, "short": false });
        let mut body = json!({
            "channel": sender.channel,
            "username": cut_utf16(sender.username, self.longest_name),
            "icon_url": "",
            "icon_emoji": "",
            "attachments": [{
                "fallback": (self.unit.cut)(sender.fallback, self.longest_text),
                "color": if message.is_error() { self.error } else { self.info },
                "author_name": author,
                "text": if message.is_templated() { without_half_entity(fitted.message) } else {
                    fitted.message },
                "mrkdwn_in": ["text"],
                "fields": fitted.fields.into_iter().map(field).collect::<Vec<Value>>(),
            }],
        });
        if self.links == Links::Buttons && !message.links().is_empty() {
            body["attachments"][0]["actions"] = message.links().iter().map(button).collect();
        }
        body
    }
}

fn button(link: &Link) -> Value {
    json!({ "type": "button", "text": link.label, "url": link.url })
}

/// The sender's name: the Provider's `username`, or the reporting controller.
pub fn username_or_controller<'a>(username: &'a str, message: &Message<'a>) -> &'a str {
    if username.is_empty() {
        &message.event.reporting_controller
    } else {
        username
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::payload::fit::UTF16;
    use crate::notifier::sample::Sample;

    const SMALL: SlackForm = SlackForm {
        info: "good",
        error: "danger",
        longest_name: 30,
        longest_text: 10,
        longest_value: 12,
        most_fields: 2,
        links: Links::Buttons,
        longest_attachment: 65,
        unit: UTF16,
        around_a_field: 0,
    };

    #[test]
    fn each_part_and_the_total_stay_within_their_limits() {
        let sample = Sample::error().with_message("🚀🚀🚀🚀🚀🚀");
        let sender = Sender {
            username: &"u".repeat(40),
            channel: "c",
            fallback: "webapp: failed",
        };
        let body = SMALL.body(&sample.message(), &sender);
        let attachment = &body["attachments"][0];
        assert_eq!(body["username"], format!("{}…", "u".repeat(29)));
        assert_eq!(attachment["color"], "danger");
        assert_eq!(attachment["fallback"], "webapp: f…");
        assert_eq!(attachment["text"], "🚀🚀🚀🚀…");
        let fields = json!([
            { "title": "summary", "value": "Production …", "short": false },
            { "title": "cluster", "value": "prod…", "short": false },
        ]);
        assert_eq!(attachment["fields"], fields);
    }
}
