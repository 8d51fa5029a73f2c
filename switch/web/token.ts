/**
 * Who may use the page and the API at its address: whoever has the token, which a browser shows as a cookie that no script can
 * read and no other site can have sent. Main thread.
 */
import { createHash, timingSafeEqual } from 'node:crypto';

const COOKIE_SECONDS = 30 * 24 * 3600;

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/**
 * Of each token another one: a browser keeps one set of cookies for all ports of a host, and behind tunnels all hosts are this
 * one. Who logs in to the second Ringway stays logged in to the first.
 */
function cookieName(token: string): string {
  return `ringway-${digest(`ringway cookie ${token}`).toString('hex').slice(0, 8)}`;
}

/** What the cookie has: not the token itself, which other programs use. */
function cookieValue(token: string): string {
  return digest(`ringway page ${token}`).toString('hex');
}

export function isToken(given: string, token: string): boolean {
  return timingSafeEqual(digest(given), digest(token));
}

/** Of a request: by `Authorization: Bearer`, or by the cookie. */
export function hasToken(headers: Headers, token: string): boolean {
  const [, bearer] = /^Bearer (.+)$/i.exec(headers.get('Authorization') ?? '') ?? [];
  if (bearer !== undefined) return isToken(bearer, token);
  const cookies = (headers.get('Cookie') ?? '').split(/;\s*/);
  const name = `${cookieName(token)}=`;
  const shown = cookies.find((cookie) => cookie.startsWith(name))?.slice(name.length) ?? '';
  return isToken(shown, cookieValue(token));
}

export function cookieOf(token: string): string {
  return `${cookieName(token)}=${cookieValue(token)}; Path=/; Max-Age=${COOKIE_SECONDS}; HttpOnly; SameSite=Strict`;
}

/** Has the browser forget it. */
export function goneCookieOf(token: string): string {
  return `${cookieName(token)}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict`;
}
