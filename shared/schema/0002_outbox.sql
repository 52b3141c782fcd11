-- Jobs this room has promised to send: written in the transaction of the change they follow from, deleted once the
-- broker has confirmed them.

create table outbox (
    message_id text primary key,
    type text not null,
    operation_id text not null,
    body bytea not null,
    posted_at timestamptz not null default now()
);

create index outbox_in_order on outbox (posted_at);

grant select, insert, update, delete on outbox to $room;
