-- Browser sessions of signers, the lesser way to log in, log-ins under way at an identity provider, and which
-- activation context an approval page shows.

-- A session is known by the SHA-256 of what the cookie holds: who reads this table can continue none of them.
create table sessions (
    session_hash bytea primary key check (length(session_hash) = 32),
    -- The same through a log-in, where the cookie changes. No browser ever presents it.
    visit_id text not null,
    tenant_id text references tenants,
    user_id text,
    display_name text not null default '',
    method text check (method in ('passkey', 'password', 'idp')),
    language text check (language in ('en', 'ja')),
    seen_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    check ((user_id is null) = (tenant_id is null) and (user_id is null) = (method is null))
);

create index sessions_by_expiry on sessions (expires_at);

create table passwords (
    tenant_id text not null references tenants,
    user_id text not null,
    display_name text not null,
    password_hash text not null,
    -- AES-256-GCM under the key of RAKKAN_SECRETS_KEY_FILE, bound to the signer.
    totp_sealed bytea not null,
    totp_step bigint not null,
    failures integer not null default 0,
    not_before timestamptz not null default '1970-01-01T00:00:00Z',
    set_at timestamptz not null default now(),
    primary key (tenant_id, user_id)
);

create table idp_logins (
    state_hash bytea primary key check (length(state_hash) = 32),
    visit_id text not null,
    nonce text not null,
    code_verifier text not null,
    continue_to text not null,
    expires_at timestamptz not null
);

create index idp_logins_by_expiry on idp_logins (expires_at);

create table shown_contexts (
    request_hash bytea primary key check (length(request_hash) = 32),
    visit_id text not null,
    context_id text not null,
    context text not null,
    expires_at timestamptz not null
);

create index shown_contexts_by_expiry on shown_contexts (expires_at);

create function keep_ended() returns trigger language plpgsql as $$
begin
    if old.ended_at is not null or new.expires_at > old.expires_at then
        raise exception 'a session that ended stays ended, and none grows longer';
    end if;
    return new;
end $$;

create trigger ended_is_final before update on sessions for each row execute function keep_ended();

create function keep_code_used() returns trigger language plpgsql as $$
begin
    if new.totp_step < old.totp_step and new.totp_sealed = old.totp_sealed then
        raise exception 'a code that was used stays used';
    end if;
    return new;
end $$;

create trigger used_codes_are_final before update on passwords for each row execute function keep_code_used();

grant select, insert, delete on sessions, passwords, idp_logins, shown_contexts to $room;
grant update (seen_at, ended_at, language) on sessions to $room;
grant update (display_name, password_hash, totp_sealed, totp_step, failures, not_before, set_at) on passwords to $room;
grant update (context_id, context, expires_at) on shown_contexts to $room;
