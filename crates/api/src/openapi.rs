// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The contract as a document: `openapi.json`, generated from the types and one table.
//!
//! The table below is the list of operations. The daemon's tests send every one of them to its
//! router, and a test here compares the committed file with what is generated.

use crate::console::ConsoleQuery;
use crate::event::{Event, EventQuery};
use crate::guest::{
    CreateGuest, Created, EditGuest, GuestDetail, GuestList, GuestQuery, GuestSummary, StopGuest,
};
use crate::host::{
    Baseline, HostInfo, Invitation, InviteRequest, JoinRequest, Peer, PeerList, Reloaded,
    Relocation, SetRelocation,
};
use crate::log::{LogPage, LogQuery};
use crate::migration::{MigrateRequest, Migration, MigrationList, Report, ReportList, ReportQuery};
use crate::pages::{KeptMemoryList, MemoryDropped};
use crate::plan::{Plan, PlanRequest};
use crate::problem::Problem;
use crate::recover::{RecoverRequest, Recovered, Recovery};
use std::collections::BTreeMap;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::openapi::{
    Components, Content, Info, OpenApi, OpenApiBuilder, Paths, Ref, RefOr, Required,
    ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

/// Returns the text of `openapi.json`.
pub fn document() -> String {
    let mut json = build().to_pretty_json().expect("the document is plain data");
    json.push('\n');
    json
}

/// Returns every operation of the contract: its method and its path, with parameters in braces.
pub fn operations() -> Vec<(&'static str, &'static str)> {
    table().iter().map(|entry| (entry.verb(), entry.path)).collect()
}

fn table() -> Vec<Entry> {
    use HttpMethod::{Delete, Get, Post, Put};
    let op = Entry::new;
    // A table: one operation each.
    vec![
        op(Get, "/v1/host", "What this host is and has").answers::<HostInfo>(),
        op(Post, "/v1/reload", "Read the configuration again").answers::<Reloaded>(),
        op(Get, "/v1/relocation", "Whether this host is open for moving guests")
            .answers::<Relocation>(),
        op(Put, "/v1/relocation", "Open or close this host for moving guests")
            .takes::<SetRelocation>()
            .answers::<Relocation>(),
        op(Get, "/v1/hosts", "This host and those paired with it").answers::<PeerList>(),
        op(Get, "/v1/baseline", "The CPU model and machine type that fit all these hosts")
            .answers::<Baseline>(),
        op(Post, "/v1/hosts", "Pair with the host whose invitation this is")
            .takes::<JoinRequest>()
            .answers::<Peer>(),
        op(Delete, "/v1/hosts/{host}", "End the pairing with a host"),
        op(Post, "/v1/invitation", "Open an invitation for another host")
            .takes::<InviteRequest>()
            .answers::<Invitation>(),
        op(Delete, "/v1/invitation", "Withdraw the open invitation"),
        op(Get, "/v1/guests", "The guests of this host, or of all paired hosts")
            .query::<GuestQuery>()
            .answers::<GuestList>(),
        op(Post, "/v1/guests", "Define a guest and, unless told otherwise, start it")
            .takes::<CreateGuest>()
            .answers::<Created>(),
        op(Get, "/v1/guests/{guest}", "Everything about a guest").answers::<GuestDetail>(),
        op(Delete, "/v1/guests/{guest}", "Forget a stopped guest's definition; disks stay"),
        op(Put, "/v1/guests/{guest}/definition", "Replace a guest's definition")
            .takes::<EditGuest>()
            .answers::<Created>(),
        op(Post, "/v1/guests/{guest}/start", "Start a guest").answers::<GuestSummary>(),
        op(Post, "/v1/guests/{guest}/adopt", "Take over a guest that others have started")
            .answers::<Created>(),
        op(Post, "/v1/guests/{guest}/stop", "Stop a guest, and wait for it")
            .takes::<StopGuest>()
            .answers::<GuestSummary>(),
        op(Post, "/v1/guests/{guest}/reboot", "Ask a guest to shut down, and start it again")
            .answers::<GuestSummary>(),
        op(Post, "/v1/guests/{guest}/pause", "Pause a guest").answers::<GuestSummary>(),
        op(Post, "/v1/guests/{guest}/unpause", "Let a paused guest go on")
            .answers::<GuestSummary>(),
        op(Get, "/v1/guests/{guest}/console", "Attach to a guest's console")
            .query::<ConsoleQuery>()
            .upgrades(),
        op(Post, "/v1/guests/{guest}/plan", "What a migration would meet and cost")
            .takes::<PlanRequest>()
            .answers::<Plan>(),
        op(Post, "/v1/guests/{guest}/migrate", "Begin a migration")
            .takes::<MigrateRequest>()
            .answers::<Migration>(),
        op(Post, "/v1/guests/{guest}/cancel", "Ask a guest's migration to be given up")
            .answers::<Migration>(),
        op(Post, "/v1/guests/{guest}/cutover", "Tell a held migration to cut over")
            .answers::<Migration>(),
        op(Get, "/v1/guests/{guest}/report", "The newest report about a guest").answers::<Report>(),
        op(Get, "/v1/guests/{guest}/recovery", "What each host knows about a guest in doubt")
            .answers::<Recovery>(),
        op(Post, "/v1/guests/{guest}/recovery", "Act on a guest in doubt")
            .takes::<RecoverRequest>()
            .answers::<Recovered>(),
        op(Get, "/v1/migrations", "The migrations that go on now").answers::<MigrationList>(),
        op(Get, "/v1/migrations/{id}", "One migration").answers::<Migration>(),
        op(Get, "/v1/reports", "Old reports, newest first")
            .query::<ReportQuery>()
            .answers::<ReportList>(),
        op(Get, "/v1/pages", "The memory this host keeps of guests that have left")
            .answers::<KeptMemoryList>(),
        op(Delete, "/v1/pages", "Drop all kept memory").answers::<MemoryDropped>(),
        op(Delete, "/v1/pages/{guest}", "Drop what is kept of a guest").answers::<MemoryDropped>(),
        op(Get, "/v1/log", "Lines of the log; with `follow`, a stream of events")
            .query::<LogQuery>()
            .answers::<LogPage>(),
        op(Get, "/v1/events", "What happens, as it happens").query::<EventQuery>().streams(),
    ]
}

/// One operation of the contract.
struct Entry {
    method: HttpMethod,
    path: &'static str,
    summary: &'static str,
    query: Option<SchemaOf>,
    body: Option<SchemaOf>,
    answer: Answer,
}

enum Answer {
    Nothing,
    Json(Box<SchemaOf>),
    Events,
    Upgrade,
}

/// A type of the contract, as the document needs it.
struct SchemaOf {
    name: String,
    schema: RefOr<Schema>,
    /// The types it is made of, by name.
    parts: Vec<(String, RefOr<Schema>)>,
}

impl SchemaOf {
    fn of<T: ToSchema>() -> Self {
        let mut parts = Vec::new();
        T::schemas(&mut parts);
        Self { name: T::name().into_owned(), schema: <T as PartialSchema>::schema(), parts }
    }

    fn reference(&self) -> Ref {
        Ref::from_schema_name(&self.name)
    }
}

impl Entry {
    fn new(method: HttpMethod, path: &'static str, summary: &'static str) -> Self {
        Self { method, path, summary, query: None, body: None, answer: Answer::Nothing }
    }

    fn query<T: ToSchema>(mut self) -> Self {
        self.query = Some(SchemaOf::of::<T>());
        self
    }

    fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some(SchemaOf::of::<T>());
        self
    }

    fn answers<T: ToSchema>(mut self) -> Self {
        self.answer = Answer::Json(Box::new(SchemaOf::of::<T>()));
        self
    }

    fn streams(mut self) -> Self {
        self.answer = Answer::Events;
        self
    }

    fn upgrades(mut self) -> Self {
        self.answer = Answer::Upgrade;
        self
    }

    fn verb(&self) -> &'static str {
        match self.method {
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Delete => "DELETE",
            _ => "GET",
        }
    }

    /// `post_guests_guest_start`: stable, and unique because method and path are.
    fn id(&self) -> String {
        let words = self.path.split(['/', '{', '}']).filter(|word| !word.is_empty()).skip(1);
        words.fold(self.verb().to_lowercase(), |id, word| id + "_" + word)
    }

    fn operation(&self) -> Operation {
        let mut operation =
            OperationBuilder::new().operation_id(Some(self.id())).summary(Some(self.summary));
        for name in self.path.split('/').filter_map(|part| part.strip_prefix('{')) {
            let name = name.trim_end_matches('}');
            operation = operation.parameter(
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .description(parameter_description(name))
                    .schema(Some(Object::with_type(Type::String))),
            );
        }
        for parameter in self.query.iter().flat_map(query_parameters) {
            operation = operation.parameter(parameter);
        }
        if let Some(body) = &self.body {
            operation = operation.request_body(Some(
                RequestBodyBuilder::new()
                    .required(Some(Required::True))
                    .content("application/json", Content::new(Some(body.reference())))
                    .build(),
            ));
        }
        let problem = ResponseBuilder::new().description("It was not done, and why").content(
            "application/problem+json",
            Content::new(Some(Ref::from_schema_name("Problem"))),
        );
        let (status, answer) = self.response();
        operation.response(status, answer).response("default", problem).build()
    }

    fn response(&self) -> (&'static str, ResponseBuilder) {
        let response = ResponseBuilder::new();
        match &self.answer {
            Answer::Nothing => ("204", response.description("Done")),
            Answer::Json(schema) => (
                "200",
                response
                    .description("Done")
                    .content("application/json", Content::new(Some(schema.reference()))),
            ),
            Answer::Events => (
                "200",
                response.description("Server-sent events; `data` of each is an `Event`").content(
                    "text/event-stream",
                    Content::new(Some(SchemaOf::of::<Event>().reference())),
                ),
            ),
            Answer::Upgrade => (
                "101",
                response.description(
                    "With `Upgrade: whimbrel-console`: frames of a kind (1: data, 2: a notice in \
                     JSON), a length (four bytes, big endian, at most 65536) and a payload",
                ),
            ),
        }
    }
}

fn parameter_description(name: &str) -> Option<&'static str> {
    match name {
        "guest" => Some("The guest's name, its number on this host, or its uuid"),
        "host" => Some("The name of a paired host"),
        _ => Some("The migration's uuid"),
    }
}

fn query_parameters(query: &SchemaOf) -> Vec<ParameterBuilder> {
    let RefOr::T(Schema::Object(object)) = &query.schema else { return Vec::new() };
    let parameter = |(name, schema): (&String, &RefOr<Schema>)| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .schema(Some(schema.clone()))
    };
    object.properties.iter().map(parameter).collect()
}

fn build() -> OpenApi {
    let mut paths = Paths::new();
    let mut schemas: BTreeMap<String, RefOr<Schema>> = BTreeMap::new();
    let mut add = |schema: SchemaOf| {
        schemas.insert(schema.name, schema.schema);
        schemas.extend(schema.parts);
    };
    add(SchemaOf::of::<Problem>());
    add(SchemaOf::of::<Event>());
    add(SchemaOf::of::<crate::console::Notice>());
    for entry in table() {
        paths.add_path_operation(entry.path, vec![entry.method.clone()], entry.operation());
        entry.body.into_iter().for_each(&mut add);
        if let Answer::Json(schema) = entry.answer {
            add(*schema);
        }
    }
    let mut info = Info::new("Whimbrel", "1");
    info.description = Some(
        "Runs virtual machines on Linux hosts and moves them between hosts while they run. \
         Served on a unix socket."
            .to_owned(),
    );
    let mut components = Components::new();
    components.schemas = schemas.into_iter().collect();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed document is what the types say. To renew it: `cargo xtask gen`, or run this
    /// test with `WHIMBREL_GEN=1`.
    #[test]
    fn the_committed_document_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let fresh = document();
        if std::env::var_os("WHIMBREL_GEN").is_some() {
            std::fs::write(path, &fresh).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == fresh, "crates/api/openapi.json is stale; run `cargo xtask gen`");
    }

    /// Every reference leads somewhere, every operation has its own id, and no query is lost.
    #[test]
    fn the_document_is_whole() {
        let json: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let text = document();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(json["components"]["schemas"][name].is_object(), "no schema `{name}`");
        }
        let ids: std::collections::BTreeSet<_> = table().iter().map(Entry::id).collect();
        assert_eq!(ids.len(), table().len());
        for entry in table() {
            let count = entry.query.iter().flat_map(query_parameters).count();
            assert_eq!(entry.query.is_some(), count > 0, "{}", entry.path);
        }
    }
}
