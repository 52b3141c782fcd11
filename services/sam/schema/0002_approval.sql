-- What signers approve, and what they approve it with. As before, a row with a `mac` is worth nothing without it.

alter table credentials add column assurance text not null default 'SCAL1-pin'
    check (assurance in ('SCAL1-pin', 'SCAL2-passkey'));

-- An authorization approved in a context has no SAD.
alter table authorizations alter column sad_hash drop not null;

create table contexts (
    context_id text primary key,
    signer_id text not null references signers,
    tenant_id text not null,
    credential_id text not null references credentials,
    client_id text not null,
    client_name text not null,
    context bytea not null,
    opened_at timestamptz not null,
    expires_at timestamptz not null,
    mac bytea not null,
    outcome text not null default 'open' check (outcome in ('open', 'approved', 'refused')),
    decided_at timestamptz,
    check ((outcome = 'open') = (decided_at is null))
);

create index contexts_of_signer on contexts (signer_id, decided_at desc) where outcome <> 'open';
create index contexts_open on contexts (credential_id, expires_at) where outcome = 'open';
create index contexts_expiring on contexts (expires_at) where outcome = 'open';

create table authenticators (
    authenticator_id text primary key,
    signer_id text not null references signers,
    kind text not null check (kind in ('passkey', 'device')),
    label text not null,
    webauthn_id bytea unique,
    public_key bytea not null unique,
    sign_count bigint not null,
    backup_eligible boolean not null,
    added_at timestamptz not null,
    usable_from timestamptz not null,
    removed_at timestamptz,
    version int not null,
    mac bytea not null,
    check ((kind = 'passkey') = (webauthn_id is not null))
);

create index authenticators_of_signer on authenticators (signer_id);

-- Challenges of log-ins and enrollments.
create table challenges (
    challenge_id text primary key,
    purpose text not null check (purpose in ('login', 'enrollment')),
    challenge bytea not null,
    signer_id text references signers,
    ticket_hash bytea,
    expires_at timestamptz not null,
    mac bytea not null,
    spent boolean not null default false
);

create index challenges_expiring on challenges (expires_at);

create table tickets (
    ticket_hash bytea primary key,
    signer_id text not null references signers,
    expires_at timestamptz not null,
    mac bytea not null,
    spent boolean not null default false
);

create index tickets_of_signer on tickets (signer_id) where not spent;

-- What authenticators said, byte for byte, with the key it is verified by: written once, never changed.
create table evidence (
    evidence_id text primary key,
    context_id text not null unique references contexts,
    signer_id text not null references signers,
    authenticator_id text not null references authenticators,
    kind text not null,
    context bytea not null,
    public_key bytea not null,
    webauthn_id bytea,
    client_data_json bytea,
    authenticator_data bytea,
    signature bytea not null,
    user_handle bytea,
    verified_at timestamptz not null,
    mac bytea not null
);

create function keep_decided() returns trigger language plpgsql as $$
begin
    if old.outcome <> 'open' then
        raise exception 'a context is decided once';
    end if;
    if tg_op = 'DELETE' then
        return old;
    end if;
    return new;
end $$;
create trigger decided before update or delete on contexts for each row execute function keep_decided();

create function keep_removed() returns trigger language plpgsql as $$
begin
    if old.removed_at is not null or new.sign_count < old.sign_count then
        raise exception 'an authenticator does not come back, nor does its counter go back';
    end if;
    return new;
end $$;
create trigger removed before update on authenticators for each row execute function keep_removed();

create function keep_spent_once() returns trigger language plpgsql as $$
begin
    if old.spent and not new.spent then
        raise exception 'what is spent stays spent';
    end if;
    return new;
end $$;
create trigger spent before update on challenges for each row execute function keep_spent_once();
create trigger spent before update on tickets for each row execute function keep_spent_once();

grant select, insert, update (outcome, decided_at), delete on contexts to $room;
grant select, insert, update (sign_count, removed_at, version, mac) on authenticators to $room;
grant select, insert, update (spent), delete on challenges to $room;
grant select, insert, update (spent) on tickets to $room;
grant select, insert on evidence to $room;
