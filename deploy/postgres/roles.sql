-- Two roles for one database: an owner that runs migrations, and a role for the servers, which may only read and write
-- rows. Idempotent. Run it in that database as an administrator:
--
--     OWNER_PASSWORD=… APP_PASSWORD=… psql "$ADMIN_URL" --file deploy/postgres/roles.sql
--
-- The administrator is a superuser, or owns the database and has CREATEROLE. A password that is not in the environment
-- stays unchanged; `\password social_posts` sets one without showing it in the server log.
-- For other role names: --set owner=… --set app=…
\set ON_ERROR_STOP on
\if :{?owner}
\else
    \set owner social_posts_owner
\endif
\if :{?app}
\else
    \set app social_posts
\endif
\getenv owner_password OWNER_PASSWORD
\getenv app_password APP_PASSWORD

-- psql does not expand variables inside dollar quotes.
SELECT set_config('roles.owner', :'owner', false), set_config('roles.app', :'app', false) \g /dev/null
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_roles WHERE rolname IN (current_setting('roles.owner'), current_setting('roles.app'))
            AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
    ) THEN
        RAISE EXCEPTION 'one of the roles is there, and may do more than it should: choose another name';
    END IF;
END $$;

SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY[:'owner', :'app']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
\if :{?owner_password}
    ALTER ROLE :"owner" PASSWORD :'owner_password';
\endif
\if :{?app_password}
    ALTER ROLE :"app" PASSWORD :'app_password';
\endif
-- Only a superuser can transfer ownership to a role without being its member.
SELECT format('GRANT %I TO CURRENT_USER', :'owner') WHERE NOT pg_has_role(:'owner', 'USAGE') \gexec

BEGIN;
-- On a live system, fail after 1.5 s instead of blocking other sessions for long. Then run it again.
SET LOCAL lock_timeout = '1500ms';
REVOKE CREATE, TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC, :"app";
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO :"owner";
GRANT CONNECT ON DATABASE :"DBNAME" TO :"app";
ALTER SCHEMA public OWNER TO :"owner";
REVOKE CREATE ON SCHEMA public FROM PUBLIC, :"app";
GRANT USAGE ON SCHEMA public TO :"app";

-- Transfer all existing objects. Sequences of columns follow their tables; objects of extensions stay.
DO $$
DECLARE statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER %s %s OWNER TO %I', what, name, current_setting('roles.owner'))
        FROM (
            SELECT 'pg_class'::regclass AS catalogue, pg_class.oid, oid::regclass::text AS name, relowner AS owner,
                CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                    ELSE 'TABLE' END AS what
            FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
            UNION ALL
            SELECT 'pg_proc'::regclass, oid, oid::regprocedure::text, proowner, 'ROUTINE'
            FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind <> 'a'
            UNION ALL
            SELECT 'pg_type'::regclass, oid, oid::regtype::text, typowner, 'TYPE'
            FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('d', 'e')
        ) AS object
        WHERE owner <> current_setting('roles.owner')::regrole AND NOT EXISTS (
            SELECT FROM pg_depend WHERE classid = catalogue AND objid = object.oid AND deptype IN ('a', 'i', 'e')
        )
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"app";
-- `serial` columns, such as those of adopted tables, need their sequence. Identity columns do not.
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"app";
-- The same for tables that migrations will create.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE ON SEQUENCES TO :"app";
COMMIT;
