// Types of what preact.js exports, for editors and `tsc` (tests/web/test_types.py). Browsers do not load this.
export function html(strings: TemplateStringsArray, ...values: unknown[]): any;
export function h(type: unknown, props: unknown, ...children: unknown[]): any;
export function render(element: unknown, parent: Element): void;
export class Component {}
export function Fragment(props: unknown): any;
export function createContext(value: any): any;
export function useCallback<F extends (...values: any[]) => any>(callback: F, values: unknown[]): F;
export function useContext(context: any): any;
export function useEffect(effect: () => void | (() => void), values?: unknown[]): void;
export function useErrorBoundary(callback?: (error: unknown) => void): [any, () => void];
export function useId(): string;
export function useLayoutEffect(effect: () => void | (() => void), values?: unknown[]): void;
export function useMemo<T>(make: () => T, values: unknown[]): T;
export function useRef(value?: any): { current: any };
export function useState(value?: any): [any, (value: any) => void];
