//! The API's own documentation: openapi.json, a reference page that needs no network, and what each error code means.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::AppState;
use super::problem::{Code, Language};

/// Paths that openapi.json does not list.
pub const PATHS: [&str; 5] = ["/openapi.json", "/docs", "/docs/", "/docs/{*rest}", "/docs/errors"];

/// The routes of the documentation.
pub fn routes() -> Router<AppState> {
    // The page would otherwise send the document to a validator on the internet.
    let config = Config::new(["/openapi.json"]).validator_url("none").try_it_out_enabled(true);
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/docs/errors", get(errors))
        .merge(SwaggerUi::new("/docs").config(config))
}

async fn openapi() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(super::openapi_json()));
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], DOCUMENT.clone()).into_response()
}

async fn errors() -> Response {
    static PAGE: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(error_page()));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    ([(header::CONTENT_TYPE, html)], PAGE.clone()).into_response()
}

fn error_page() -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Scrip: error codes</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
         h2{font:600 1rem ui-monospace,monospace;margin:1.5rem 0 .2rem}p{margin:.1rem 0}:target{background:#fe9}\
         small{color:#666}</style>\
         <h1>Error codes</h1><p>Every problem answer has one of these in <code>code</code>. \
         Names in braces stand for values of the case at hand.</p>",
    );
    for code in Code::ALL {
        let entry = code.entry();
        let _ = write!(page, "<h2 id=\"{0}\">{0} <small>{1}</small></h2>", entry.code, entry.status.as_u16());
        for language in [Language::English, Language::Chinese] {
            let (title, detail) = (entry.title[language as usize], escape(entry.detail[language as usize]));
            let _ = write!(page, "<p lang=\"{}\"><b>{title}.</b> {detail}</p>", language.tag());
        }
    }
    page.push_str("</html>\n");
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
