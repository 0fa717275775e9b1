// Peer in Go: net/http and pgx, one prepared statement per request, without batches.
//
// The statements are those of bench/statements.py, which the asyncpg peer uses, too. They check session and account,
// and build the JSON in PostgreSQL. pgx prepares each once per connection. Tokens are verified once and then cached, as
// in the other peers. One process uses as many cores as the others have workers, and as many connections in all.
//
// Possible improvement: share round trips among concurrent requests, as this application does.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const (
	connectionsPerWorker = 10 // As in asyncpg_raw.py.
	maxRemembered        = 10_000
	maxLimit             = 100
	maxSkip              = 10_000
	cursorSignatureBytes = 12
)

type shared struct {
	Settings   map[string]string `json:"settings"`
	Statements map[string]string `json:"statements"`
}

type token struct {
	User    int64 `json:"user_id"`
	Session int64 `json:"sid"`
	Expires int64 `json:"exp"`
}

type vote struct {
	Post      int64 `json:"post_id"`
	Direction int   `json:"vote_dir"`
}

type api struct {
	secret     []byte
	keyID      string
	pool       *pgxpool.Pool
	statements map[string][maxLimit + 1]string
	lock       sync.RWMutex
	remembered map[string]token
}

var errMalformed = errors.New("malformed")

func main() {
	workers, err := strconv.Atoi(os.Getenv("WORKERS"))
	if err != nil {
		log.Fatalf("WORKERS: %v", err)
	}
	runtime.GOMAXPROCS(workers)
	made, err := newAPI(os.Getenv("SECRET_KEY"), os.Getenv("STATEMENTS"), os.Getenv("DATABASE_URL"), workers)
	if err != nil {
		log.Fatal(err)
	}
	routes := http.NewServeMux()
	routes.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, []byte(`{"status":"ok"}`)) })
	routes.HandleFunc("/posts", made.authenticated(http.MethodGet, made.listPosts))
	routes.HandleFunc("/posts/", made.authenticated(http.MethodGet, made.getPost))
	routes.HandleFunc("/vote", made.authenticated(http.MethodPost, made.castVote))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), routes))
}

func newAPI(secret, statementsPath, databaseURL string, workers int) (*api, error) {
	var given shared
	text, err := os.ReadFile(statementsPath)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &given); err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(workers * connectionsPerWorker)
	config.MinConns = config.MaxConns
	for name, value := range given.Settings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		return nil, err
	}
	statements := make(map[string][maxLimit + 1]string)
	for name, statement := range given.Statements {
		var byLimit [maxLimit + 1]string
		for limit := range byLimit {
			byLimit[limit] = strings.ReplaceAll(statement, "{limit}", strconv.Itoa(limit))
		}
		statements[name] = byLimit
	}
	id := sha256.Sum256([]byte("key id:" + secret))
	return &api{
		secret: []byte(secret), keyID: fmt.Sprintf("%x", id)[:12], pool: pool, statements: statements,
		remembered: make(map[string]token),
	}, nil
}

func (a *api) authenticated(method string, next func(http.ResponseWriter, *http.Request, token)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			fail(w, http.StatusMethodNotAllowed, "Method Not Allowed")
			return
		}
		text := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		caller, err := a.verify(text)
		if err != nil {
			unauthorized(w)
			return
		}
		next(w, r, caller)
	}
}

func (a *api) verify(text string) (token, error) {
	a.lock.RLock()
	caller, isKnown := a.remembered[text]
	a.lock.RUnlock()
	if !isKnown {
		var err error
		if caller, err = a.decode(text); err != nil {
			return token{}, err
		}
		a.lock.Lock()
		if len(a.remembered) >= maxRemembered {
			a.remembered = make(map[string]token)
		}
		a.remembered[text] = caller
		a.lock.Unlock()
	}
	if caller.Expires <= time.Now().Unix() {
		return token{}, errMalformed
	}
	return caller, nil
}

func (a *api) decode(text string) (token, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 || !hmac.Equal([]byte(parts[2]), []byte(encoded(a.signature(parts[0]+"."+parts[1])))) {
		return token{}, errMalformed
	}
	var header struct {
		Algorithm string `json:"alg"`
		Key       string `json:"kid"`
	}
	var caller token
	if decodeJSON(parts[0], &header) != nil || header.Algorithm != "HS256" || header.Key != a.keyID {
		return token{}, errMalformed
	}
	if decodeJSON(parts[1], &caller) != nil || caller.User <= 0 || caller.Session <= 0 {
		return token{}, errMalformed
	}
	return caller, nil
}

func (a *api) listPosts(w http.ResponseWriter, r *http.Request, caller token) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, "malformed query")
		return
	}
	limit, limitErr := number(query, "limit", 10, 1, maxLimit)
	skip, skipErr := number(query, "skip", 0, 0, maxSkip)
	sort := query.Get("sort")
	if sort == "" {
		sort = "new"
	}
	if limitErr != nil || skipErr != nil || (sort != "new" && sort != "top" && sort != "hot") {
		fail(w, http.StatusUnprocessableEntity, "malformed query")
		return
	}
	name, values := "", []interface{}{caller.Session, caller.User}
	switch {
	case query.Get("search") != "":
		name, values = "search", append(values, query.Get("search"))
	case query.Get("owner_id") != "":
		owner, err := strconv.ParseInt(query.Get("owner_id"), 10, 64)
		if err != nil {
			fail(w, http.StatusUnprocessableEntity, "malformed query")
			return
		}
		name, values = "owner", append(values, owner, skip)
	case query.Get("tag") != "":
		name, values = "tag", append(values, query.Get("tag"), skip)
	case query.Get("cursor") != "":
		value, id, err := a.position(query.Get("cursor"), sort)
		if err != nil {
			fail(w, http.StatusUnprocessableEntity, "malformed cursor")
			return
		}
		name, values = sort+"_after", append(values, value, id)
	case sort == "new" && skip == 0:
		name = "new"
	default:
		name, values = sort+"_skip", append(values, skip)
	}
	byLimit := a.statements[name]
	a.respond(w, r, byLimit[limit], values)
}

func (a *api) getPost(w http.ResponseWriter, r *http.Request, caller token) {
	id, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/posts/"), 10, 64)
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, "malformed id")
		return
	}
	byLimit := a.statements["post"]
	a.respond(w, r, byLimit[1], []interface{}{caller.Session, caller.User, id})
}

func (a *api) respond(w http.ResponseWriter, r *http.Request, statement string, values []interface{}) {
	var body []byte
	err := a.pool.QueryRow(r.Context(), statement, values...).Scan(&body)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		unauthorized(w)
	case err != nil:
		log.Print(err)
		fail(w, http.StatusInternalServerError, "Internal Server Error")
	case body == nil:
		fail(w, http.StatusNotFound, "the post was not found")
	default:
		answer(w, http.StatusOK, body)
	}
}

func (a *api) castVote(w http.ResponseWriter, r *http.Request, caller token) {
	wanted := vote{Direction: -1}
	if json.NewDecoder(http.MaxBytesReader(w, r.Body, 10_000)).Decode(&wanted) != nil ||
		wanted.Direction < 0 || wanted.Direction > 1 {
		fail(w, http.StatusUnprocessableEntity, "malformed vote")
		return
	}
	name, message := "retract", "successfully deleted vote"
	if wanted.Direction == 1 {
		name, message = "cast", "successfully added vote"
	}
	var isAlive, hasChanged bool
	var votes *int64
	byLimit := a.statements[name]
	err := a.pool.QueryRow(r.Context(), byLimit[1], caller.Session, caller.User, wanted.Post).
		Scan(&isAlive, &hasChanged, &votes)
	switch {
	case err != nil:
		log.Print(err)
		fail(w, http.StatusInternalServerError, "Internal Server Error")
	case !isAlive:
		unauthorized(w)
	case votes == nil:
		fail(w, http.StatusNotFound, "the post does not exist")
	case !hasChanged && wanted.Direction == 1:
		fail(w, http.StatusConflict, "the vote exists")
	case !hasChanged:
		fail(w, http.StatusNotFound, "Vote does not exist")
	default:
		answer(w, http.StatusCreated, []byte(fmt.Sprintf(`{"message":"%s","votes":%d}`, message, *votes)))
	}
}

// position returns sort value and id of a cursor that the application signed (app/schemas/cursor.py).
func (a *api) position(cursor, sort string) (interface{}, int64, error) {
	signed, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(signed) < cursorSignatureBytes {
		return nil, 0, errMalformed
	}
	payload := signed[cursorSignatureBytes:]
	if !hmac.Equal(signed[:cursorSignatureBytes], a.signature("cursor:" + string(payload))[:cursorSignatureBytes]) {
		return nil, 0, errMalformed
	}
	var fields []json.RawMessage
	if json.Unmarshal(payload, &fields) != nil || len(fields) < 4 {
		return nil, 0, errMalformed
	}
	var madeFor string
	var isBackward bool
	var id int64
	if json.Unmarshal(fields[0], &madeFor) != nil || json.Unmarshal(fields[1], &isBackward) != nil ||
		json.Unmarshal(fields[3], &id) != nil || madeFor != sort || isBackward {
		return nil, 0, errMalformed
	}
	var value interface{}
	switch sort {
	case "new":
		var text string
		err = json.Unmarshal(fields[2], &text)
		at, failure := time.Parse("2006-01-02 15:04:05-07", text) // PostgreSQL's text, as the application signs it.
		if failure != nil {
			at, failure = time.Parse(time.RFC3339, text)
		}
		if failure != nil {
			return nil, 0, errMalformed
		}
		value = at
	case "top":
		var votes int32
		err = json.Unmarshal(fields[2], &votes)
		value = votes
	default:
		var hot float64
		err = json.Unmarshal(fields[2], &hot)
		value = hot
	}
	return value, id, err
}

func (a *api) signature(text string) []byte {
	made := hmac.New(sha256.New, a.secret)
	made.Write([]byte(text))
	return made.Sum(nil)
}

func number(query url.Values, name string, usual, least, most int) (int, error) {
	text := query.Get(name)
	if text == "" {
		return usual, nil
	}
	value, err := strconv.Atoi(text)
	if err == nil && (value < least || value > most) {
		err = errMalformed
	}
	return value, err
}

func encoded(value []byte) string {
	return base64.RawURLEncoding.EncodeToString(value)
}

func decodeJSON(part string, into interface{}) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func unauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	fail(w, http.StatusUnauthorized, "Could not validate credentials")
}

func fail(w http.ResponseWriter, status int, detail string) {
	answer(w, status, []byte(`{"detail":"`+detail+`"}`))
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
