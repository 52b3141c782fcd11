-- Tenants, their clients, the tokens they were given, and the assertions they have spent.

create table tenants (
    tenant_id text primary key,
    name text not null,
    suspended boolean not null default false,
    added_at timestamptz not null default now()
);

create table clients (
    client_id text primary key,
    tenant_id text not null references tenants,
    name text not null,
    method text not null check (method in ('client_secret', 'private_key_jwt')),
    secret_hash bytea check (length(secret_hash) = 32),
    jwks text,
    suspended boolean not null default false,
    -- Tokens issued before this moment are dead, also after the client is resumed.
    tokens_from timestamptz not null default '1970-01-01T00:00:00Z',
    added_at timestamptz not null default now(),
    check ((method = 'client_secret') = (secret_hash is not null)),
    check ((method = 'private_key_jwt') = (jwks is not null))
);

create index clients_of_tenant on clients (tenant_id);

-- A token is known by the SHA-256 of its jti: who reads this table can use none of them.
create table tokens (
    token_hash bytea primary key check (length(token_hash) = 32),
    client_id text not null references clients,
    issued_at timestamptz not null,
    expires_at timestamptz not null,
    revoked_at timestamptz
);

create index tokens_by_expiry on tokens (expires_at);

create table spent_assertions (
    digest bytea primary key check (length(digest) = 32),
    expires_at timestamptz not null
);

create index spent_assertions_by_expiry on spent_assertions (expires_at);

create function keep_revoked() returns trigger language plpgsql as $$
begin
    if old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at then
        raise exception 'a revoked token stays revoked';
    end if;
    return new;
end $$;

create trigger revoked_is_final before update on tokens for each row execute function keep_revoked();

create function keep_dead_tokens_dead() returns trigger language plpgsql as $$
begin
    if new.tokens_from < old.tokens_from then
        raise exception 'tokens that died stay dead';
    end if;
    return new;
end $$;

create trigger tokens_from_only_grows before update on clients for each row execute function keep_dead_tokens_dead();

-- Forgetting is for what has expired; an assertion forgotten early could be used twice.
create function keep_until_expired() returns trigger language plpgsql as $$
begin
    if old.expires_at > now() then
        raise exception 'it has not expired';
    end if;
    return old;
end $$;

create trigger tokens_kept before delete on tokens for each row execute function keep_until_expired();
create trigger assertions_kept before delete on spent_assertions for each row execute function keep_until_expired();

grant select, insert on tenants, clients, tokens, spent_assertions to $room;
grant update (suspended) on tenants to $room;
grant update (suspended, tokens_from) on clients to $room;
grant update (revoked_at) on tokens to $room;
grant delete on tokens, spent_assertions to $room;
