-- What clients ask signers for, what signers granted, and the codes and refresh tokens that came of it.

alter table clients
    add column profile text not null default 'csc-compat' check (profile in ('csc-compat', 'hardened')),
    add column redirect_uris text[] not null default '{}' check (cardinality(redirect_uris) <= 16),
    add column flags text[] not null default '{}'
        check (flags <@ array['pkce-optional', 'token-type-sad', 'account-tokens']),
    -- SHA-256 of the client secret, of clients that send account tokens only (CSC API 4.6).
    add column account_token_key bytea check (length(account_token_key) = 32),
    add check (profile <> 'hardened' or (method = 'private_key_jwt' and flags = '{}')),
    add check (('account-tokens' = any (flags)) = (account_token_key is not null));

-- A request is known by the SHA-256 of its id, and shown by the first browser session that opens it alone.
create table authorization_requests (
    request_hash bytea primary key check (length(request_hash) = 32),
    client_id text not null references clients,
    asked text not null check (length(asked) <= 1000000),
    pushed_until timestamptz,
    expires_at timestamptz not null,
    session_hash bytea check (length(session_hash) = 32),
    outcome text check (outcome in ('granted', 'denied')),
    ended_at timestamptz,
    check ((outcome is null) = (ended_at is null)),
    check (outcome is null or session_hash is not null)
);

create index authorization_requests_by_expiry on authorization_requests (expires_at);

create table grants (
    grant_id bytea primary key check (length(grant_id) = 16),
    client_id text not null references clients,
    tenant_id text not null,
    user_id text not null,
    scope text not null check (scope in ('service', 'credential')),
    authorization_id text,
    credential_id text,
    redirect_uri text not null,
    redirect_uri_given boolean not null,
    code_challenge text,
    key_thumbprint text,
    details text,
    code_hash bytea not null unique check (length(code_hash) = 32),
    code_expires_at timestamptz not null,
    code_spent_at timestamptz,
    granted_at timestamptz not null,
    -- Nothing that comes of the grant outlives this.
    expires_at timestamptz not null,
    revoked_at timestamptz,
    check ((scope = 'credential') = (authorization_id is not null)),
    check ((scope = 'credential') = (credential_id is not null)),
    -- FAPI 2.0 5.3.2.1
    check (code_expires_at <= granted_at + interval '60 seconds')
);

create index grants_by_expiry on grants (expires_at);

create table refresh_tokens (
    token_hash bytea primary key check (length(token_hash) = 32),
    grant_id bytea not null references grants on delete cascade,
    expires_at timestamptz not null,
    spent_at timestamptz
);

create index refresh_tokens_of_grant on refresh_tokens (grant_id);

-- The SAM is told the jti of a token that dies with its grant. It is no secret: a token is good by its signature.
alter table tokens
    add column grant_id bytea references grants on delete cascade,
    add column token_id text,
    add check ((grant_id is null) = (token_id is null));

create index tokens_of_grant on tokens (grant_id) where grant_id is not null;

create function keep_request_ended() returns trigger language plpgsql as $$
begin
    if old.session_hash is not null and new.session_hash is distinct from old.session_hash then
        raise exception 'a request stays with the session that opened it';
    end if;
    if old.outcome is not null
        and (new.outcome is distinct from old.outcome or new.ended_at is distinct from old.ended_at) then
        raise exception 'a request that ended stays as it ended';
    end if;
    return new;
end $$;

create trigger ended_is_final before update on authorization_requests
    for each row execute function keep_request_ended();

create function keep_grant_spent() returns trigger language plpgsql as $$
begin
    if old.code_spent_at is not null and new.code_spent_at is distinct from old.code_spent_at then
        raise exception 'a code that was spent stays spent';
    end if;
    if old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at then
        raise exception 'a revoked grant stays revoked';
    end if;
    return new;
end $$;

create trigger spent_is_final before update on grants for each row execute function keep_grant_spent();

create function keep_refresh_spent() returns trigger language plpgsql as $$
begin
    if old.spent_at is not null and new.spent_at is distinct from old.spent_at then
        raise exception 'a refresh token that was spent stays spent';
    end if;
    return new;
end $$;

create trigger spent_is_final before update on refresh_tokens for each row execute function keep_refresh_spent();

create function refuse_credential_refresh() returns trigger language plpgsql as $$
begin
    if (select scope from grants where grants.grant_id = new.grant_id) <> 'service' then
        raise exception 'refresh tokens are for scope service';
    end if;
    return new;
end $$;

create trigger service_only before insert on refresh_tokens for each row execute function refuse_credential_refresh();

-- A code or refresh token forgotten early could be reused unnoticed.
create trigger requests_kept before delete on authorization_requests for each row execute function keep_until_expired();
create trigger grants_kept before delete on grants for each row execute function keep_until_expired();
create trigger refresh_tokens_kept before delete on refresh_tokens for each row execute function keep_until_expired();

grant select, insert, delete on authorization_requests, grants, refresh_tokens to $room;
grant update (session_hash, outcome, ended_at) on authorization_requests to $room;
grant update (code_spent_at, revoked_at) on grants to $room;
grant update (spent_at) on refresh_tokens to $room;
